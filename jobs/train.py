"""ray job submit --working-dir . -- python jobs/train.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["train", *sys.argv[1:]])
