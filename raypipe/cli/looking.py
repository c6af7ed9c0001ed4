"""Looking at a run, at what a config can name, and at what a run may lose."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypipe.cli.app import RUN_HELP, ConfigPath, Overrides, app, folder_of, read
from raypipe.errors import InputError
from raypipe.guard.terminal import say


@app.command()
def show(
    config: ConfigPath,
    note: Annotated[str, typer.Option(help="note_id of an unlabelled or training note")],
    task: Annotated[str | None, typer.Option(help="a task that the note was asked; default: its first")] = None,
) -> None:
    """Print one note and what each arm hides in it, side by side. Shows the note's text on the terminal."""
    from raypipe.findings.show import masks_of, show_note
    from raypipe.runs import integrity

    run = folder_of(config)
    if not (masks := masks_of(run)):
        raise InputError(f"{run / 'mask'} is not there or not finished: run `raypipe mask` first")
    integrity.demand_whole(masks)
    with integrity.blamed(masks):
        say(show_note(masks, note, task))


@app.command()
def status(
    config: Annotated[Path | None, typer.Option("--config", "-c", help=f"{RUN_HELP}; default: all runs")] = None,
    runs: Annotated[Path, typer.Option(help="without --config: the folder of all runs")] = Path("runs"),
    set_: Overrides = None,
) -> None:
    """What of a run is finished and what is missing; without --config, of every run. Looks only."""
    from raypipe.findings import status as of_run

    if config is None:
        say(of_run.overview(runs))
    else:
        say(of_run.status(read(config, set_), config))


@app.command("list")
def list_(
    kind: Annotated[
        Literal["methods", "strategies", "families", "recipes", "spaces"] | None, typer.Argument(help="default: all")
    ] = None,
) -> None:
    """What a config can name: attribution methods, masking strategies, model families, recipes, search spaces."""
    from raypipe.findings.catalogue import KINDS, catalogue

    say(catalogue(KINDS if kind is None else [kind]))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors that complete and check YAML."""
    from raypipe.settings import reference

    say(reference.schema_text().rstrip())


@app.command()
def clean(
    config: ConfigPath,
    yes: Annotated[bool, typer.Option("--yes", help="delete what is listed; without it nothing is deleted")] = False,
) -> None:
    """List what a run may lose without losing a result, and what stays; with --yes, delete the former."""
    from raypipe.runs import clean as of_run
    from raypipe.runs import lock

    folder = folder_of(config)
    of_run.demand_run(folder)
    total = 0
    with lock.held(lock.root_of(folder.resolve())) if yes else nullcontext():
        for one in (losses := of_run.dispensable(folder)):
            total += (size := one.size)
            say(f"{size / 1e6:10,.1f} MB  {one.path}: {one.why}")
            if yes:
                one.remove()
    say(f"{total / 1e6:10,.1f} MB  {'deleted' if yes else 'may go; --yes deletes it' if losses else 'may go'}")
    say("what stays:")
    for name, size in of_run.sizes(folder).items():
        say(f"{size / 1e6:10,.1f} MB  {name}")
