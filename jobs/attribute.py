"""ray job submit --working-dir . -- python jobs/attribute.py --config jobs/configs/demo.yaml"""

import sys

from raypipe.cli import main

main(["attribute", *sys.argv[1:]])
