"""ray job submit --working-dir . -- python jobs/compare.py --config jobs/configs/compare_small.yaml"""

import sys

from raypipe.cli import main

main(["compare", *sys.argv[1:]])
