"""ray job submit --working-dir . -- python jobs/evaluate.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["evaluate", *sys.argv[1:]])
