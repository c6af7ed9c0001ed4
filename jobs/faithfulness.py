"""python jobs/faithfulness.py --config jobs/configs/demo.yaml: needs no Ray, but may be submitted as the others are."""

import sys

from raypipe.cli import main

main(["faithfulness", *sys.argv[1:]])
