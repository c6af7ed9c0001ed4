"""The command line: one command per step, one for the whole job. The same command again goes on where it stopped.

Exit codes: 0 done, 2 the input is wrong, 3 too many dead letters, 4 partly done, 5 no usable cluster, 6 a defect,
7 trouble with the disk, 130 and 143 stopped (errors.ExitCode).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import raypipe
from raypipe.errors import ExitCode, InputError
from raypipe.guard import command, process
from raypipe.guard.terminal import say
from raypipe.settings import configfile
from raypipe.settings.config import Config

_UsageError: Any = typer.BadParameter.__mro__[1]  # of click, which newer versions of typer bring along themselves
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

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


def _config(path: Path, overrides: Sequence[str] | None = None) -> Config:
    """The config in a file. Unless it names a model of the hub, nothing from here on opens a connection."""
    return _connected(configfile.load(path, overrides or ()))


def _connected(settings: Config) -> Config:
    if settings.needs_hub:
        process.allow_hub()
    return settings


def _folder(path: Path) -> Path:
    """The folder of the run that --config names."""
    if path.is_dir():
        return path
    settings = _config(path)
    return Path(settings.runs) / settings.name


def _read(path: Path, overrides: Sequence[str] | None, verify: bool = False) -> Any:
    """The run of a config as it lies on disk; nothing is written."""
    settings = _config(path, overrides)
    from raypipe.runs import integrity
    from raypipe.runs.run import Run

    run = Run(settings)
    if verify:
        integrity.demand_whole(integrity.finished(run.folder), by_digest=True)
    return run


@contextmanager
def _opened(path: Path, overrides: Sequence[str] | None, verify: bool = False) -> Iterator[Any]:
    """The run of a config, its input checked, to be written in by this command alone."""
    run = _read(path, overrides, verify)
    from raypipe.runs import lock

    with lock.held(run.folder):
        try:
            run.open()
        except InputError as error:
            raise configfile.located(error, path, overrides or ()) from None
        yield run


def _report(run: Any, *cells: Any) -> None:
    """Write and print the report of a run or comparison. Broken files are named."""
    from raypipe.findings import results
    from raypipe.runs import integrity

    with integrity.blamed(integrity.finished(run.folder)):
        say(results.report(run, *cells))


def _arms(run: Any, chosen: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(chosen or ()) - set(run.settings.arms))
    if unknown:
        raise InputError(f"no such arm: {', '.join(unknown)}; the config has {', '.join(run.settings.arms)}")
    return list(chosen or run.settings.arms)


def _make(command: str, config: Path, set_: Sequence[str] | None) -> None:
    """Make the steps of the run that belong to a command."""
    from raypipe.runs import driver

    with _opened(config, set_) as run:
        driver.run_command(run, command)


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
) -> None:
    """Write a runnable project around your own tables, and check it. Prints no text and no label."""
    from raypipe.runs import project

    yes, comma, no = answers.partition(",")
    if not (yes.strip() and comma and no.strip()):
        raise InputError("--answers: must be two words with a comma between them, such as yes,no")
    named = project.Named(
        id_, text, group, split, tuple(label or ()), labels_id, task_column, label_column, (yes.strip(), no.strip())
    )
    proposal = project.propose(notes, labels, named)
    say(f"{proposal.n_notes:,} notes; name what is wrong with an option (raypipe init --help), or mend the files\n")
    say(proposal)
    files = project.write(folder, proposal, model, named.answers)
    say(f"\nwrote {', '.join(map(str, files))}\n")
    _check(files[0], names_labels=False)


# What to run after a command; `raypipe run` makes all of it.
NEXT = {
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


def _next(command: str, config: Path, set_: Sequence[str] | None, arms: Sequence[str] = ()) -> None:
    """The last line of a command: the one that follows."""
    options = [("--config", str(config)), *(("--set", key) for key in set_ or ()), *(("--arm", arm) for arm in arms)]
    say(f"next: {shlex.join(['raypipe', NEXT[command], *(part for option in options for part in option)])}")


@app.command()
def check(config: ConfigPath, set_: Overrides = None) -> None:
    """Check config, tasks, labels, notes and model: every problem at once, and what may spoil a run. Starts nothing."""
    _check(config, set_ or ())


def _check(config: Path, overrides: Sequence[str] = (), names_labels: bool = True) -> None:
    from dataclasses import replace

    from raypipe.runs.check import examine

    read = configfile.salvaged(config, overrides)
    problems, warnings = list(read.problems), 0
    if read.result is not None:
        report, more = examine(_connected(read.result))
        more = [problem for problem in more if not read.is_of_left_out(problem.where.partition(":")[0])]
        problems += configfile.located(InputError(more), config, overrides).problems
        warnings = len(report.doubts)
        say(replace(report, names_labels=names_labels))
    said = f"{warnings} warning{'' if warnings == 1 else 's'}"
    if problems:
        say(f"not ok: {len(problems)} problem{'' if len(problems) == 1 else 's'}, {said}")
        raise InputError(problems)
    say(f"ok, {said}; next: raypipe run --config {config}")


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
        say(page(Run(_config(config, set_)), task, note))
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
    from raypipe.tuning import trial_counts

    run = _read(config, set_)
    trials = trial_counts.of_space(space, configfile.written(config, set_ or ())) if space is not None else ()
    given = options.parsed(gpus, peak, share, memory, model_config, notes, trials)
    try:
        planned = estimate.plan(run, given)
    except InputError as error:
        raise configfile.located(error, config) from None
    say(json.dumps(asdict(planned), indent=1) if as_json else text.text(planned))


@app.command()
def pretrain(config: ConfigPath, set_: Overrides = None) -> None:
    """Train a tokenizer and a small decoder from scratch."""
    _make("pretrain", config, set_)
    _next("pretrain", config, set_)


@app.command()
def finetune(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Fine-tune the scorer on the labels; with --arm, the students of an arm."""
    from raypipe.runs import driver

    with _opened(config, set_) as run:
        driver.run_command(run, "finetune", _arms(run, arm) if arm else ())
    _next("finetune --arm" if arm else "finetune", config, set_)


@app.command()
def attribute(config: ConfigPath, set_: Overrides = None) -> None:
    """Relevance of every word of the unlabelled notes, on all GPUs."""
    _make("attribute", config, set_)
    _next("attribute", config, set_)


@app.command()
def faithfulness(config: ConfigPath, set_: Overrides = None) -> None:
    """Compare methods, targets and layers of attribution on labelled dev notes. Needs the scorer, not Ray."""
    from raypipe.findings.pages import faithfulness_page
    from raypipe.runs import driver

    with _opened(config, set_) as run:
        driver.run_command(run, "faithfulness")
        say(faithfulness_page(run))
    _next("faithfulness", config, set_)


@app.command()
def mask(config: ConfigPath, set_: Overrides = None) -> None:
    """Masking plans of all arms, from stored relevance or straight from attribution."""
    _make("mask", config, set_)
    _next("mask", config, set_)


@app.command()
def show(
    config: ConfigPath,
    note: Annotated[str, typer.Option(help="note_id of an unlabelled or training note")],
    task: Annotated[str | None, typer.Option(help="a task that the note was asked; default: its first")] = None,
) -> None:
    """Print one note and what each arm hides in it, side by side. Shows the note's text on the terminal."""
    from raypipe.findings.show import show_note
    from raypipe.runs import integrity

    masks = _folder(config) / "mask"
    if not (masks / "manifest.json").exists():
        raise InputError(f"{masks} is not there or not finished: run `raypipe mask` first")
    integrity.demand_whole([masks])
    with integrity.blamed([masks]):
        say(show_note(masks / "data", note, task))


@app.command()
def export(
    config: ConfigPath,
    what: Annotated[
        Literal["attributions", "spans"],
        typer.Option(
            help="attributions: a row per note, task, layer and word; spans: words, marked in the notes' text"
        ),
    ],
    out: Annotated[Path, typer.Option(help="a new file: .parquet of attributions, .json or .jsonl of spans")],
    text: Annotated[bool, typer.Option("--text", help="attributions: with each word's text (NOTE TEXT)")] = False,
    to: Annotated[
        Literal["label-studio", "doccano"] | None, typer.Option(help="spans: the tool (the file holds NOTE TEXT)")
    ] = None,
    arm: Annotated[str | None, typer.Option(help="spans: what this arm hides")] = None,
    top: Annotated[
        float | None, typer.Option(min=0, max=100, help="spans: instead, the most relevant words, in percent")
    ] = None,
    task: Annotated[str | None, typer.Option(help="spans: of this task alone; default: of all")] = None,
) -> None:
    """Write relevance or spans of a run for other tools. `--what spans` and `--text` write note text.

    The file is readable by you alone; treat it as your notes where it holds their text. Without `--text`, attributions
    hold ids, offsets and numbers.
    """
    run = _folder(config)
    if what == "attributions":
        if to or arm or top or task:
            raise InputError("--to, --arm, --top and --task belong to --what spans")
        from raypipe.findings import attributions

        n_notes, n = attributions.export(run, out, text)
        say(f"{out}: {n:,} rows of {n_notes:,} notes{'; it holds note text' if text else ''}")
        return
    if to is None or (arm is None) == (top is None) or text:
        raise InputError("--what spans needs --to, and either --arm or --top; --text belongs to --what attributions")
    from raypipe.findings import spans

    which = spans.Hidden(arm, task) if arm is not None else spans.Relevant(float(top or 0), task)
    n_notes, n = spans.export(run, out, to, which)
    say(f"{out}: {n:,} spans over {n_notes:,} notes; it holds note text")


@app.command("import-spans")
def import_spans(
    file: Annotated[Path, typer.Argument(help="what you exported: Label Studio's JSON, doccano's JSONL")],
    out: Annotated[Path, typer.Option(help="a new .parquet file with note_id, text (NOTE TEXT) and spans")],
) -> None:
    """Read annotated spans back, into the column that `data.columns.spans` names. The notes come from `export`."""
    from raypipe import rows
    from raypipe.notes import annotation_tools
    from raypipe.records import new_file

    notes, n_without = annotation_tools.read(file)
    with new_file(out) as fresh:
        rows.write(notes, fresh)
    say(f"{out}: {len(notes):,} notes; left out, because nobody annotated them: {n_without:,}")


@app.command()
def train(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Reconstruction: students learn to fill in what was masked."""
    from raypipe.runs import driver

    with _opened(config, set_) as run:
        arms = [name for name in _arms(run, arm) if arm or run.reconstructs(name)]
        driver.run_command(run, "train", arms)
    _next("train", config, set_, arms)


@app.command()
def evaluate(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Score the labelled notes of the evaluation split with the students."""
    from raypipe.runs import driver

    with _opened(config, set_) as run:
        driver.run_command(run, "evaluate", _arms(run, arm))
    _next("evaluate", config, set_)


@app.command()
def probe(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """What can be read off every layer of the backbone and of the arms' students. Needs what `run` leaves.

    Of a comparison, the first seed's models.
    """
    from raypipe.findings.pages import probing_page
    from raypipe.runs import compare, driver
    from raypipe.runs.probing import probed_models

    with _opened(config, set_, verify) as whole:
        run = compare.first(whole)
        driver.make(run, [f"probe/{model}" for model in probed_models(run)], "probe")
        say(probing_page(run))
    _next("probe", config, set_)


@app.command()
def canaries(config: ConfigPath, set_: Overrides = None) -> None:
    """Plant made-up secrets in a copy of the notes, train the arms on it, and measure what their students know of them.

    Needs nothing that `run` leaves. Prints no secret and no text.
    """
    from raypipe.findings import memorisation
    from raypipe.runs import canaries as of_run
    from raypipe.runs import driver
    from raypipe.runs.probing import probed_models

    with _opened(config, set_) as run:
        driver.make(run, ["planted"], "canaries")
        planted = of_run.of_planted(run).open()
        driver.make(planted, [f"exposure/{model}" for model in probed_models(planted)])
        table, path = memorisation.page(planted)
        say(f"{table}\n\n{path}")


@app.command()
def report(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """Tables, intervals and figures of a run or comparison, from what is there. Makes no step."""
    from raypipe.runs import compare

    run = _read(config, set_, verify)
    cells = compare.opened(run)
    _report(run, *compare.by_budget(cells), compare.by_finetuning(cells))


@app.command()
def run(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """The whole job: pretrain, finetune, attribute and mask, train, finetune, evaluate, report."""
    from raypipe.runs import driver

    with _opened(config, set_, verify) as opened:
        driver.run_all(opened)
        _report(opened)
    _next("run", config, set_)


@app.command()
def compare(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """The arms over seeds, label budgets and fine-tunings, into one table with intervals and gates."""
    from raypipe.runs import compare as comparison

    with _opened(config, set_, verify) as run:
        cells = comparison.compare(run)
        _report(run, *comparison.by_budget(cells), comparison.by_finetuning(cells))
    _next("compare", config, set_)


@app.command()
def repair(step: Annotated[Path, typer.Argument(help="a step's folder, such as runs/demo/mask")]) -> None:
    """Delete what is damaged of a finished step, so that the same command as before makes that again and no more."""
    from raypipe.runs import integrity, lock

    with lock.held(lock.run_of(step)):
        for line in integrity.repair(step.resolve()):
            say(line)


@app.command()
def tune(
    config: ConfigPath,
    space: Annotated[Path, typer.Option(help="Python file that says what to try; it is run (tuning/space.py)")],
    models: Annotated[str | None, typer.Option(help="backbones, by commas: folders, id@commit, pretrain:qwen3")] = None,
    set_: Overrides = None,
) -> None:
    """Search settings on dev notes, one study per model. The same command again goes on where it stopped."""
    settings = _config(config, set_)
    from raypipe.tuning import space as spaces

    loaded = spaces.load(space)
    names = [name for name in (models or "").split(",") if name] or settings.tune.models or loaded.models
    if any("@" in name for name in names):  # id@commit
        process.allow_hub()
    from raypipe.tuning import backbones, plan, search, search_report, studies

    written = configfile.written(config, set_ or ())
    plans = plan.plans(loaded, backbones.backbones(written.value, names))
    from raypipe.runs import lock
    from raypipe.runs.progress import Printer

    with lock.held(studies.root_of(settings).parent):
        results, folder = search.tune(plans, Printer())
        say(search_report.text(results))
        say(search_report.write(results, folder / "report"))
    for best in sorted(folder.glob("*/best.yaml")):
        say(f"next: {shlex.join(['raypipe', 'run', '--config', str(best)])}")
    if (error := search.failed(results)) is not None:
        raise error


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
    from raypipe.runs import lock
    from raypipe.stream import submission, working_dir

    overrides = [part for override in set_ or () for part in ("--set", override)]
    line = [command_, "--config", str(working_dir.place_of(config)), *overrides, *(more or ())]
    named = working_dir.files(config, settings, parsed(line).get("space"))
    with tempfile.TemporaryDirectory() as folder:
        working_dir.build(named, Path(folder))
        say(f"sent along: {', '.join(map(str, named))}")
        entrypoint = shlex.join(["python", "-m", "raypipe.cli", *line])
        code = submission.run(submission.Order(entrypoint, folder, address, lock.DEAD_S), retry)
    where = f"{settings.runs}/{settings.name}"
    say(f"exit code {code}; on the cluster: {where}, its report in {where}/{'tune/' * (command_ == 'tune')}report")
    raise typer.Exit(code)


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


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="a new folder, to be carried to the other machine")],
    model: Annotated[list[Path] | None, typer.Option(help="a model's folder to take along; may be repeated")] = None,
    source: Annotated[Path, typer.Option(help="raypipe's source, with constraints.txt")] = Path(),
) -> None:
    """All that a machine without internet needs: wheels, models, checksums, and install.sh. Made on a like machine."""
    from raypipe.models import bundle as offline

    say(offline.make(out, source, model or ()))


@app.command("tune-report")
def tune_report(config: ConfigPath) -> None:
    """Heat maps, best settings, effects of parameters, and costs of a search."""
    from raypipe.tuning import search_report, trial_tables

    run = _folder(config)
    search_tables = trial_tables.load(run)
    say(search_report.text(search_tables))
    say(search_report.write(search_tables, (run if (run / "study.json").exists() else run / "tune") / "report"))


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
        say(of_run.status(_read(config, set_), config))


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

    folder = _folder(config)
    losses = of_run.dispensable(folder)
    for one in losses:
        say(f"{one.size / 1e6:10,.1f} MB  {one.path}: {one.why}")
    total = sum(one.size for one in losses) / 1e6
    if yes and losses:
        with lock.held(folder):
            for one in losses:
                one.remove()
    say(f"{total:10,.1f} MB  {'deleted' if yes else 'may go; --yes deletes it' if losses else 'may go'}")
    say("what stays:")
    for name, size in of_run.sizes(folder).items():
        say(f"{size / 1e6:10,.1f} MB  {name}")


def _invoke(arguments: Sequence[str] | None) -> object:
    try:
        return app(arguments, standalone_mode=False)
    except _UsageError as error:
        if not error.message and not hasattr(error, "param"):  # no command was named, and the help is printed
            return ExitCode.CONFIG
        raise InputError(error.format_message()) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit (guard/command.py)."""
    sys.exit(command.run(lambda: _invoke(arguments)))


if __name__ == "__main__":
    main()
