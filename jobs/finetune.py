"""ray job submit --working-dir . -- python jobs/finetune.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["finetune", *sys.argv[1:]])
