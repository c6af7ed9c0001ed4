"""ray job submit --working-dir . -- python jobs/step.py mask --config jobs/configs/demo.yaml

Any command that `raypipe submit` sends, by its name. Those that print notes are refused: Ray keeps a job's log.
"""

import sys
from typing import get_args

from raypipe import cli
from raypipe.errors import InputError
from raypipe.guard import command


def refuse() -> None:
    """Raise for every other command."""
    raise InputError(f"jobs/step.py runs {', '.join(get_args(cli.SUBMITTED))}, and no other command in a job")


if sys.argv[1:2] and sys.argv[1] in get_args(cli.SUBMITTED):
    cli.main()
sys.exit(command.run(refuse))
