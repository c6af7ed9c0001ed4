"""Other machines: a job on a Ray cluster, runs in an object store, and all that a machine without internet needs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raypipe.cli.app import ConfigPath, Overrides, app, folder_of, next_after
from raypipe.guard.terminal import say
from raypipe.settings import configfile

SUBMITTED = Literal[
    "check", "run", "compare", "tune", "pretrain", "finetune", "attribute", "faithfulness", "mask", "train", "evaluate",
    "probe", "report"
]  # fmt: skip


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, as the command would get them; nothing is run. Raises what `app` raises."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    with group.commands[name].make_context(name, rest) as context:
        return dict(context.params)


@app.command()
def submit(
    config: Annotated[Path, typer.Option("--config", "-c", help="a config (docs/settings.md)")],
    address: Annotated[str, typer.Option(help="of the cluster's jobs: http://HEAD:8265")],
    command_: Annotated[SUBMITTED, typer.Option("--command", help="what is run there")] = "run",
    set_: Overrides = None,
    retry: Annotated[int, typer.Option(min=0, help="connections again after a lost one; a lost job starts again")] = 0,
    more: Annotated[list[str] | None, typer.Argument(help="options of that command, after --")] = None,
) -> None:
    """Run a command on a Ray cluster, and print its log. Config, tasks, lexicons and space travel; data never does."""
    import tempfile

    settings = configfile.load(config, set_ or ())
    from raypipe.stream import submission, working_dir

    overrides = [part for override in set_ or () for part in ("--set", override)]
    line = [command_, "--config", str(working_dir.place_of(config)), *overrides, *(more or ())]
    named = working_dir.files(config, settings, parsed(line).get("space"))
    with tempfile.TemporaryDirectory() as folder:
        working_dir.build(named, Path(folder))
        say(f"sent along: {', '.join(map(str, named))}")
        if not settings.resources.ray:
            one = "one process there does it all (of a search, what its trials share)"
            say(f"resources.ray is false: {one}; --set resources.ray=true uses the cluster")
        entrypoint = shlex.join(["python", "-m", "raypipe.cli", *line])
        code = submission.run(submission.Order(entrypoint, folder, address), retry)
    where = f"{settings.runs}/{settings.name}"
    say(f"exit code {code}; on the cluster: {where}, its report in {where}/{'tune/' * (command_ == 'tune')}report")
    raise typer.Exit(code)


StoreUri = Annotated[str, typer.Argument(help="where runs lie in an object store: s3://bucket/runs")]


@app.command()
def upload(store: StoreUri, config: ConfigPath, set_: Overrides = None) -> None:
    """Copy the finished steps of a run to an object store. It then holds note text, as the run's folder does."""
    from raypipe.runs import store as stores

    folder = folder_of(config, set_)
    n = stores.copy(stores.on_disk(folder), stores.in_store(store, folder.resolve().name), say)
    say(f"{n} steps uploaded; the same command goes on where it stopped")


@app.command()
def download(store: StoreUri, config: ConfigPath, set_: Overrides = None) -> None:
    """Copy the finished steps of a run from an object store to the folder that the config names."""
    from raypipe.runs import lock
    from raypipe.runs import store as stores

    folder = folder_of(config, set_)
    there, here = stores.in_store(store, folder.resolve().name), stores.on_disk(folder)
    with lock.held(lock.root_of(folder.resolve())):
        n = stores.copy(there, here, say)
    say(f"{n} steps downloaded; {next_after('download', config, set_)}")


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="a new folder, to be carried to the other machine")],
    model: Annotated[list[Path] | None, typer.Option(help="a model's folder to take along; may be repeated")] = None,
    source: Annotated[Path, typer.Option(help="raypipe's source, with constraints.txt")] = Path(),
) -> None:
    """All that a machine without internet needs: wheels, models, checksums, and install.sh. Made on a like machine."""
    from raypipe.models import bundle as offline

    say(offline.make(out, source, model or ()))
