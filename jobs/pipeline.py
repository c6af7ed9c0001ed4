"""ray job submit --working-dir . -- python jobs/pipeline.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["run", *sys.argv[1:]])
