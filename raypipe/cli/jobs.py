"""Whole jobs, and the reports that they end with: a run, a comparison, a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.app import (
    ConfigPath,
    Overrides,
    Verify,
    app,
    demand_whole,
    folder_of,
    next_after,
    opened,
    read,
    settings_of,
)
from raypipe.guard import process
from raypipe.guard.terminal import say
from raypipe.settings import configfile

if TYPE_CHECKING:
    from raypipe.runs.compare import Cell
    from raypipe.runs.run import Run


def _report(run: Run, cells: Mapping[Cell, Run] | None = None) -> None:
    """Write and print the report of a run or comparison."""
    from raypipe.findings import results
    from raypipe.findings.page.text import text_table

    written, page = results.write(run, cells)
    say(text_table(written))
    say(page)


@app.command()
def run(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """The whole job: pretrain, finetune, attribute and mask, train, finetune, evaluate, report."""
    from raypipe.runs import driver

    with opened(config, set_, verify) as whole:
        driver.run_all(whole)
        _report(whole, {})
    say(next_after("run", config, set_))


@app.command()
def compare(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """The arms over seeds, label budgets and fine-tunings, into one table with intervals and gates."""
    from raypipe.runs import compare as comparison

    with opened(config, set_, verify) as run:
        _report(run, comparison.compare(run))
    say(next_after("compare", config, set_))


@app.command()
def canaries(config: ConfigPath, set_: Overrides = None) -> None:
    """Plant made-up secrets in a copy of the notes, train the arms on it, and measure what their students know of them.

    Needs nothing that `run` leaves. Prints no secret and no text.
    """
    from raypipe.findings import memorisation
    from raypipe.runs import canaries as of_run
    from raypipe.runs import driver
    from raypipe.runs.probing import probed_models

    with opened(config, set_) as whole:
        driver.make(whole, ["planted"], "canaries")
        planted = of_run.of_planted(whole).open()
        driver.make(planted, [f"exposure/{model}" for model in probed_models(planted)])
        table, path = memorisation.page(planted)
        say(f"{table}\n\n{path}")


@app.command()
def report(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """Tables, intervals and figures of a run or comparison, from what is there. Makes no step."""
    _report(read(config, set_, verify))


@app.command()
def tune(
    config: ConfigPath,
    space: Annotated[Path, typer.Option(help="Python file that says what to try; it is run (tuning/space.py)")],
    models: Annotated[str | None, typer.Option(help="backbones, by commas: folders, id@commit, pretrain:qwen3")] = None,
    set_: Overrides = None,
    verify: Verify = False,
) -> None:
    """Search settings on dev notes, one study per model. The same command again goes on where it stopped."""
    settings = settings_of(config, set_)
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

    with lock.held(of_run := studies.root_of(settings).parent):
        if verify:
            demand_whole(of_run)
        results, folder = search.tune(plans, Printer())
        pages = search_report.model_pages(results)
        say(search_report.text(results, pages))
        say(search_report.write(results, pages, folder / "report"))
    for best in sorted(folder.glob("*/best.yaml")):
        say(next_after("tune", best))
    if (error := search.failed(results)) is not None:
        raise error


@app.command("tune-report")
def tune_report(config: ConfigPath) -> None:
    """Heat maps, best settings, effects of parameters, and costs of a search."""
    from raypipe.tuning import search_report, trial_tables

    run = folder_of(config)
    search_tables = trial_tables.load(run)
    pages = search_report.model_pages(search_tables)
    say(search_report.text(search_tables, pages))
    say(search_report.write(search_tables, pages, (run if (run / "study.json").exists() else run / "tune") / "report"))
