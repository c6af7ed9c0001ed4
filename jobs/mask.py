"""ray job submit --working-dir . -- python jobs/mask.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["mask", *sys.argv[1:]])
