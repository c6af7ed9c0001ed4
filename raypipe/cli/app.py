"""What the commands share: the options by which they name a run, how they open it, and the guard around them all."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import raypipe
from raypipe.errors import ExitCode, InputError, Problem
from raypipe.guard import command, process
from raypipe.guard.terminal import say
from raypipe.settings import configfile
from raypipe.settings.config import Config

if TYPE_CHECKING:
    from raypipe.runs.run import Run

HELP = """\
The command line: one command per step, one for the whole job. The same command again goes on where it stopped.

Exit codes: 0 done, 2 the input is wrong, 3 too many dead letters, 4 partly done, 5 no usable cluster, 6 a defect,
7 trouble with the disk, 130 and 143 stopped (errors.ExitCode).
"""
_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, which newer versions of typer bring along themselves
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
RUN_HELP = "a config (docs/settings.md), or the folder of a run such as runs/demo"
ConfigPath = Annotated[Path, typer.Option("--config", "-c", help=RUN_HELP)]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="override one key: attribution.layer=3")]
Arm = Annotated[list[str] | None, typer.Option("--arm", help="only this arm; may be repeated")]
Verify = Annotated[bool, typer.Option("--verify", help="first compare every file of finished steps with its SHA-256")]


def _print_version(is_wished: bool) -> None:
    if is_wished:
        say(f"raypipe {raypipe.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print it")
    ] = False,
) -> None:
    """Commands name a run by --config: a config file, or the folder of the run."""


def settings_of(path: Path, overrides: Sequence[str] | None = None) -> Config:
    """The config in a file. Unless it names a model of the hub, nothing from here on opens a connection."""
    return connected(configfile.load(path, overrides or ()))


def connected(settings: Config) -> Config:
    """The config, after connections were allowed if it names a model of the hub."""
    if settings.needs_hub:
        process.allow_hub()
    return settings


def folder_of(path: Path, overrides: Sequence[str] | None = None) -> Path:
    """The folder of the run that --config names."""
    if path.is_dir():
        return path
    settings = settings_of(path, overrides)
    return Path(settings.runs) / settings.name


def read(path: Path, overrides: Sequence[str] | None, verify: bool = False) -> Run:
    """The run of a config as it lies on disk; nothing is written."""
    settings = settings_of(path, overrides)
    from raypipe.runs.run import Run

    run = Run(settings)
    if verify:
        demand_whole(run.folder)
    return run


def demand_whole(folder: Path) -> None:
    """Refuse a run's folder if a file of any finished step in it is damaged."""
    from raypipe.runs import integrity

    integrity.demand_whole(integrity.finished(folder), by_digest=True)


def opened(path: Path, overrides: Sequence[str] | None, verify: bool = False) -> AbstractContextManager[Run]:
    """The run of a config, its input checked, to be written in by this command alone."""
    return read(path, overrides, verify).held(path, overrides)


# What to run after a command; `raypipe run` makes all of it.
NEXT = {
    "check": "run",
    "download": "run",
    "tune": "run",
    "pretrain": "finetune",
    "finetune": "mask",
    "attribute": "mask",
    "faithfulness": "mask",
    "mask": "train",
    "train": "finetune",
    "finetune --arm": "evaluate",
    "evaluate": "report",
    "run": "probe",
    "compare": "probe",
    "probe": "report",
}


def next_after(command: str, config: Path, set_: Sequence[str] | None = None, arms: Sequence[str] = ()) -> str:
    """What the last line of a command ends with: the command that follows, of the same run."""
    options = [("--config", str(config)), *(("--set", key) for key in set_ or ()), *(("--arm", arm) for arm in arms)]
    return f"next: {shlex.join(['raypipe', NEXT[command], *(part for option in options for part in option)])}"


def _invoke(arguments: Sequence[str] | None) -> object:
    for number, argument in enumerate(sys.argv[1:] if arguments is None else arguments, start=1):
        if any("\ud800" <= c <= "\udfff" for c in argument):  # a byte that is no character: no id and no key has one
            raise InputError([Problem(f"argument {number} of the command", "is not UTF-8")])
    try:
        return app(arguments, standalone_mode=False)
    except _UsageError as error:
        if not error.message and not hasattr(error, "param"):  # no command was named, and the help is printed
            return ExitCode.CONFIG
        raise InputError(error.format_message()) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit (guard/command.py)."""
    sys.exit(command.run(lambda: _invoke(arguments)))
