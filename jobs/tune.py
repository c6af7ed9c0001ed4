"""ray job submit --working-dir . -- python jobs/tune.py --config jobs/configs/demo.yaml --space tune_spaces/smoke.py"""

import sys

from raypipe.cli import main

main(["tune", *sys.argv[1:]])
