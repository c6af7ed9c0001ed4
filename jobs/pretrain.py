"""ray job submit --working-dir . -- python jobs/pretrain.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["pretrain", *sys.argv[1:]])
