"""The command line: one command per step, one for the whole job. The same command again goes on where it stopped.

Exit codes: 0 done, 2 the input is wrong, 3 too many dead letters, 4 partly done, 5 no usable cluster (errors.ExitCode).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raypipe.errors import InputError
from raypipe.settings import configfile

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="YAML file; docs/settings.md documents every key")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="override one key: attribution.layer=3")]
Arm = Annotated[list[str] | None, typer.Option("--arm", help="only this arm; may be repeated")]


def _run(path: Path, overrides: Sequence[str] | None, is_read: bool = False) -> Any:
    """The run of a config, its input checked; with `is_read`, as it lies on disk, and nothing is written."""
    from raypipe.runs.run import Run

    run = Run(configfile.load(path, overrides or ()))
    try:
        return run if is_read else run.open()
    except InputError as error:
        raise configfile.located(error, path) from None


def _arms(run: Any, chosen: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(chosen or ()) - set(run.settings.arms))
    if unknown:
        raise InputError(f"no such arm: {', '.join(unknown)}; the config has {', '.join(run.settings.arms)}")
    return list(chosen or run.settings.arms)


def _make(command: str, config: Path, set_: Sequence[str] | None) -> Any:
    """Make the steps of the run that belong to a command."""
    from raypipe.runs import driver

    run = _run(config, set_)
    driver.run_command(run, command)
    return run


@app.command()
def check(config: ConfigPath, set_: Overrides = None) -> None:
    """Check config, tasks, labels, notes and model, and print one line per task. Starts nothing."""
    from raypipe.runs.check import check as check_input

    try:
        print(check_input(configfile.load(config, set_ or ())))
    except InputError as error:
        raise configfile.located(error, config) from None


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

    run = _run(config, set_, is_read=True)
    trials = trial_counts.of_space(space, configfile.written(config, set_ or ())) if space is not None else ()
    given = options.parsed(gpus, peak, share, memory, model_config, notes, trials)
    try:
        planned = estimate.plan(run, given)
    except InputError as error:
        raise configfile.located(error, config) from None
    print(json.dumps(asdict(planned), indent=1) if as_json else text.text(planned))


@app.command()
def pretrain(config: ConfigPath, set_: Overrides = None) -> None:
    """Train a tokenizer and a small decoder from scratch."""
    _make("pretrain", config, set_)


@app.command()
def finetune(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Fine-tune the scorer on the labels; with --arm, the students of an arm."""
    from raypipe.runs import driver

    run = _run(config, set_)
    driver.run_command(run, "finetune", _arms(run, arm) if arm else ())


@app.command()
def attribute(config: ConfigPath, set_: Overrides = None) -> None:
    """Relevance of every word of the unlabelled notes, on all GPUs."""
    _make("attribute", config, set_)


@app.command()
def faithfulness(config: ConfigPath, set_: Overrides = None) -> None:
    """Compare methods, targets and layers of attribution on labelled dev notes. Needs the scorer, not Ray."""
    from raypipe.findings.pages import faithfulness_page

    print(faithfulness_page(_make("faithfulness", config, set_)))


@app.command()
def mask(config: ConfigPath, set_: Overrides = None) -> None:
    """Masking plans of all arms, from stored relevance or straight from attribution."""
    _make("mask", config, set_)


@app.command()
def show(
    note: Annotated[str, typer.Option(help="note_id of an unlabelled or training note")],
    task: Annotated[str | None, typer.Option(help="a task that the note was asked; default: its first")] = None,
    run: Annotated[Path, typer.Option(help="the run's folder, such as runs/demo")] = Path("runs/demo"),
) -> None:
    """Print one note and what each arm hides in it, side by side. Shows the note's text on the terminal."""
    from raypipe.findings.show import show_note

    if not (run / "mask" / "manifest.json").exists():
        raise InputError(f"{run / 'mask'} is not there or not finished: run `raypipe mask` first")
    print(show_note(run / "mask" / "data", note, task))


@app.command()
def train(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Reconstruction: students learn to fill in what was masked."""
    from raypipe.runs import driver

    run = _run(config, set_)
    driver.run_command(run, "train", [name for name in _arms(run, arm) if arm or run.reconstructs(name)])


@app.command()
def evaluate(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Score the labelled notes of the evaluation split with the students."""
    from raypipe.runs import driver

    run = _run(config, set_)
    driver.run_command(run, "evaluate", _arms(run, arm))


@app.command()
def probe(config: ConfigPath, set_: Overrides = None) -> None:
    """What can be read off every layer of the backbone and of the arms' students. Needs what `run` leaves.

    Of a comparison, the first seed's models.
    """
    from raypipe.findings.pages import probing_page
    from raypipe.runs import compare, driver
    from raypipe.runs.probing import probed_models

    run = compare.first(_run(config, set_))
    driver.make(run, [f"probe/{model}" for model in probed_models(run)], "probe")
    print(probing_page(run))


@app.command()
def report(config: ConfigPath, set_: Overrides = None) -> None:
    """Tables, intervals and figures of a run or comparison, from what is there. Makes no step."""
    from raypipe.findings import results
    from raypipe.runs import compare

    run = _run(config, set_, is_read=True)
    cells = compare.opened(run)
    print(results.report(run, *compare.by_budget(cells), compare.by_finetuning(cells)))


@app.command()
def run(config: ConfigPath, set_: Overrides = None) -> None:
    """The whole job: pretrain, finetune, attribute and mask, train, finetune, evaluate, report."""
    from raypipe.findings import results
    from raypipe.runs import driver

    opened = _run(config, set_)
    driver.run_all(opened)
    print(results.report(opened))


@app.command()
def compare(config: ConfigPath, set_: Overrides = None) -> None:
    """The arms over seeds, label budgets and fine-tunings, into one table with intervals and gates."""
    from raypipe.findings import results
    from raypipe.runs import compare as comparison

    run = _run(config, set_)
    cells = comparison.compare(run)
    print(results.report(run, *comparison.by_budget(cells), comparison.by_finetuning(cells)))


@app.command()
def tune(
    config: ConfigPath,
    space: Annotated[Path, typer.Option(help="Python file that says what to try; it is run (tuning/space.py)")],
    models: Annotated[str | None, typer.Option(help="backbones, by commas: folders, id@commit, pretrain:qwen3")] = None,
    set_: Overrides = None,
) -> None:
    """Search settings on dev notes, one study per model. The same command again goes on where it stopped."""
    import time

    from raypipe.settings import yamlfile
    from raypipe.settings.config import Config
    from raypipe.tuning import backbones, plan, search, search_report
    from raypipe.tuning import space as spaces

    written = configfile.written(config, set_ or ())
    settings = yamlfile.validate(Config, written)
    loaded = spaces.load(space)
    names = [name for name in (models or "").split(",") if name] or settings.tune.models or loaded.models
    plans = plan.plans(loaded, backbones.backbones(written.value, names))
    began = time.perf_counter()
    results, folder = search.tune(
        plans, lambda what: print(f"[{time.perf_counter() - began:6.1f} s] {what}", flush=True)
    )
    print(search_report.text(results))
    print(search_report.write(results, folder / "report"))
    if (error := search.failed(results)) is not None:
        raise error


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
    print(importing.import_model(model, out, dtype, importing.sample(data) if data.notes else ()))


@app.command("tune-report")
def tune_report(run: Annotated[Path, typer.Argument(help="the run's folder, such as runs/demo")]) -> None:
    """Heat maps, best settings, effects of parameters, and costs of a search."""
    from raypipe.tuning import search_report, trial_tables

    search_tables = trial_tables.load(run)
    print(search_report.text(search_tables))
    print(search_report.write(search_tables, (run if (run / "study.json").exists() else run / "tune") / "report"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit. Wrong input is told line by line, without a traceback."""
    try:
        app(arguments, standalone_mode=True)
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
