"""ray job submit ... -- python jobs/probe.py --config ...: layer curves of the backbone and of the arms' students."""

import sys

from raypipe.cli import main

main(["probe", *sys.argv[1:]])
