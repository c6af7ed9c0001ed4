"""ray job submit --working-dir . -- python jobs/report.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["report", *sys.argv[1:]])
