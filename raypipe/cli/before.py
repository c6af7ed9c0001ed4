"""Before a run: a project, its check, what a model will read, what the job will take, a model of another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypipe.cli.app import ConfigPath, Overrides, app, connected, next_after, read, settings_of
from raypipe.errors import InputError
from raypipe.guard.terminal import say
from raypipe.settings import configfile


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="a new folder for the project")],
    notes: Annotated[
        str, typer.Option(help="your notes: .parquet, .jsonl or .csv; their labels may stand beside them")
    ],
    labels: Annotated[str | None, typer.Option(help="your labels, if they are a table of their own")] = None,
    model: Annotated[str | None, typer.Option(help="a local model folder; default: a toy from scratch")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="column with the note's id")] = None,
    text: Annotated[str | None, typer.Option(help="column with the text")] = None,
    group: Annotated[str | None, typer.Option(help="column with the patient")] = None,
    split: Annotated[str | None, typer.Option(help="column with train, dev, test")] = None,
    label: Annotated[list[str] | None, typer.Option(help="column with labels; may be repeated; default: all")] = None,
    labels_id: Annotated[str | None, typer.Option(help="the note's id in the labels table")] = None,
    task_column: Annotated[str | None, typer.Option(help="of a table with a row per task and note")] = None,
    label_column: Annotated[str | None, typer.Option(help="of a table with a row per task and note")] = None,
    answers: Annotated[str, typer.Option(help="what the model says for 1 and 0")] = "yes,no",
    encoding: Annotated[
        str | None, typer.Option(help="of a .csv that is not UTF-8 (Excel: cp1252); copies it, with NOTE TEXT")
    ] = None,
    number_rows: Annotated[
        bool, typer.Option("--number-rows", help="the notes have no ids; copies them, with NOTE TEXT and numbers")
    ] = False,
) -> None:
    """Write a runnable project around your own tables, and check it. Prints no text and no label."""
    from raypipe.notes.copies import NUMBER
    from raypipe.runs import project

    yes, comma, no = answers.partition(",")
    if not (yes.strip() and comma and no.strip()):
        raise InputError("--answers: must be two words with a comma between them, such as yes,no")
    if number_rows and id_:
        raise InputError("--number-rows, --id: one of them says what the notes' ids are")
    id_ = NUMBER if number_rows else id_
    named = project.Named(
        id_, text, group, split, tuple(label or ()), labels_id, task_column, label_column, (yes.strip(), no.strip())
    )
    with project.copied(folder, notes, labels, encoding, number_rows) as tables:
        proposal = project.propose(*tables, named)
        say(f"{proposal.n_notes:,} notes; name what is wrong with an option (raypipe init --help), or mend the files\n")
        say(proposal)
        files = project.write(folder, proposal, model, named.answers)
    copied = [f"{table} (holds note text)" for table in tables if table not in (None, notes, labels)]
    say(f"\nwrote {', '.join([*copied, *map(str, files)])}\n")
    _check(files[0], names_labels=False)


@app.command()
def check(config: ConfigPath, set_: Overrides = None) -> None:
    """Check config, tasks, labels, notes and model: every problem at once, and what may spoil a run. Starts nothing."""
    _check(config, set_ or ())


def _check(config: Path, overrides: Sequence[str] = (), names_labels: bool = True) -> None:
    from dataclasses import replace

    from raypipe.runs.checking.check import examine

    read = configfile.salvaged(config, overrides)
    problems, warnings = list(read.problems), 0
    if read.result is not None:
        report, more = examine(connected(read.result))
        more = [problem for problem in more if not read.is_of_left_out(problem.where.partition(":")[0])]
        problems += configfile.located(InputError(more), config, overrides).problems
        warnings = len(report.doubts)
        say(replace(report, names_labels=names_labels))
    said = f"{warnings} warning{'' if warnings == 1 else 's'}"
    if problems:
        say(f"not ok: {len(problems)} problem{'' if len(problems) == 1 else 's'}, {said}")
        raise InputError(problems)
    say(f"ok, {said}; {next_after('check', config, overrides)}")


@app.command()
def preview(
    config: ConfigPath,
    task: Annotated[str | None, typer.Option(help="whose question; default: the first")] = None,
    note: Annotated[str | None, typer.Option(help="a note of your own: its text is printed; default: made up")] = None,
    set_: Overrides = None,
) -> None:
    """Print what the model will read: prompt, question, answers and a masked example, as text and as tokens."""
    from raypipe.findings.preview import preview as page
    from raypipe.runs.run import Run

    try:
        say(page(Run(settings_of(config, set_)), task, note))
    except InputError as error:
        raise configfile.located(error, config, set_ or ()) from None


@app.command()
def plan(
    config: ConfigPath,
    gpus: Annotated[str, typer.Option(help="how many GPUs; several by commas: 1,8,64")] = "1",
    peak: Annotated[float | None, typer.Option(help="FLOP/s of one GPU that is not here: 990e12")] = None,
    share: Annotated[float, typer.Option(help="share of the peak that is reached, where it is not measured")] = 0.4,
    memory: Annotated[str | None, typer.Option(help="of one GPU: 80GB")] = None,
    model_config: Annotated[Path | None, typer.Option(help="a config.json or its folder, instead of a model")] = None,
    notes: Annotated[int | None, typer.Option(help="plan for so many notes of the kind that data.notes has")] = None,
    space: Annotated[Path | None, typer.Option(help="also count the trials of this search space; it is run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print all of it as JSON")] = False,
    set_: Overrides = None,
) -> None:
    """What the job will take: tokens, time, memory, disk, and what would not fit. Starts nothing."""
    import json
    from dataclasses import asdict

    from raypipe.runs.planning import estimate, options, text
    from raypipe.tuning import plan as studies

    run = read(config, set_)
    trials = studies.counts(space, configfile.written(config, set_ or ())) if space is not None else ()
    given = options.parsed(gpus, peak, share, memory, model_config, notes, trials)
    try:
        planned = estimate.plan(run, given)
    except InputError as error:
        raise configfile.located(error, config) from None
    say(json.dumps(asdict(planned), indent=1) if as_json else text.text(planned))


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(help="a .gguf file (or a part of one), a folder of safetensors, a snapshot")],
    out: Annotated[Path, typer.Argument(help="a new folder, for `model.path`")],
    notes: Annotated[Path | None, typer.Option(help="notes to read a sample of: .parquet, .jsonl or .csv")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="take data.notes and its columns")] = None,
    dtype: Annotated[Literal["bfloat16", "source"], typer.Option(help="of the weights")] = "bfloat16",
) -> None:
    """Convert a decoder to a folder that every step takes, and print how well it reads. Nothing is downloaded."""
    from raypipe.models import importing
    from raypipe.settings.config import Data

    data = configfile.load(config).data if config else Data()
    data = data.model_copy(update={"notes": str(notes)}) if notes else data
    say(importing.import_model(model, out, dtype, importing.sample(data) if data.notes else ()))
