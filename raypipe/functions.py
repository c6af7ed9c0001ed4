"""The commands as functions: for notebooks and programs (docs/python.md).

    import raypipe

    (relevance,) = raypipe.attribute("my.yaml", {"attribution.layer": 1})
    relevance.said, relevance.folder, relevance.rows()

Each does what the command of its name does, and says it in a small object instead of on the terminal. What is finished
is not made again. A failure is an exception of raypipe's own, without note text: `InputError` with every problem of the
input, or `QuietError` with the type and line of a defect. The process is protected as a command's is
(guard/process.py): files are their owner's alone, nothing connects, logs and uncaught exceptions lose their messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.evaluation.uncertainty import Estimate
from raypipe.findings import results
from raypipe.findings.page.report import verdict
from raypipe.findings.page.text import text_table
from raypipe.guard import process
from raypipe.guard.quiet import quiet
from raypipe.runs import compare, driver, integrity, outcomes
from raypipe.runs.progress import Printer, silent
from raypipe.runs.run import Run
from raypipe.settings import configfile

Changes = Mapping[str, Any] | None


@dataclass(frozen=True)
class Made:
    """A finished step of a run."""

    name: str  # its folder in the run: "attribute", "train/decselfmask"
    folder: Path
    said: str  # a line without note text: what came out, what was dropped or cut and why
    facts: Mapping[str, Any] = field(repr=False)  # its manifest: counts, losses, versions, files

    def rows(self) -> pa.Table:
        """Its rows, with the columns that rows.py states; those of `mask` hold note text.

        Raises `InputError` if the step leaves a model and no rows, or if a file is damaged.
        """
        data = self.folder / "data"
        if not data.is_dir():
            raise InputError([Problem(str(self.folder), "has no rows: it left a model (`folder / 'model'`)")])
        integrity.demand_whole([self.folder])
        return rows.read(data)


@dataclass(frozen=True)
class Measured:
    """One arm's line of the report."""

    arm: str
    macro_f1: Estimate  # with `value`, `low` and `high` of the 95 % interval, from 0 to 1
    difference: Estimate | None  # of macro F1 from the reference; None: it is the reference
    auc: float | None
    verdict: str  # what may be said of the difference


@dataclass(frozen=True)
class Reported:
    """The report of a run."""

    page: Path  # report.html; metrics.json and the model cards lie beside it
    summary: str  # a few sentences: what was compared, what can be said, and what cannot
    arms: tuple[Measured, ...]
    text: str = field(repr=False)  # the tables as `raypipe report` prints them

    def __str__(self) -> str:
        return self.text


@quiet
def pretrain(config: Path | str, changes: Changes = None, say: bool = True) -> list[Made]:
    """Train a tokenizer and a small decoder from scratch.

    Of every function here: `config` is a config file or the folder of a run, `changes` other values of its keys by
    their dotted names; `say=False` prints no progress.
    """
    return _make("pretrain", config, changes, say)


@quiet
def finetune(config: Path | str, changes: Changes = None, say: bool = True, arms: Sequence[str] = ()) -> list[Made]:
    """Fine-tune the scorer on the labels; with `arms`, the students of these arms."""
    return _make("finetune", config, changes, say, arms)


@quiet
def attribute(config: Path | str, changes: Changes = None, say: bool = True) -> list[Made]:
    """Relevance of every word of the unlabelled notes; `raypipe.attributions` reads it as numpy arrays."""
    return _make("attribute", config, changes, say)


@quiet
def mask(config: Path | str, changes: Changes = None, say: bool = True) -> list[Made]:
    """Masking plans of all arms, from stored relevance or straight from attribution. Their rows hold note text."""
    return _make("mask", config, changes, say)


@quiet
def train(config: Path | str, changes: Changes = None, say: bool = True, arms: Sequence[str] = ()) -> list[Made]:
    """Reconstruction: students of `arms`, else of all arms that mask, learn to fill in what was masked."""
    return _make("train", config, changes, say, arms)


@quiet
def evaluate(config: Path | str, changes: Changes = None, say: bool = True, arms: Sequence[str] = ()) -> list[Made]:
    """Score the labelled notes of the evaluation split with the students of `arms`, else of all."""
    return _make("evaluate", config, changes, say, arms)


@quiet
def report(config: Path | str, changes: Changes = None) -> Reported:
    """The report of a run or comparison, from what is there. Makes no step."""
    return _reported(_run(config, changes, say=False))


@quiet
def run(config: Path | str, changes: Changes = None, say: bool = True) -> Reported:
    """The whole job: pretrain, finetune, attribute and mask, train, finetune, evaluate, report."""
    with _opened(config, changes, say) as opened:
        driver.run_all(opened)
        return _reported(opened, {})


def _run(config: Path | str, changes: Changes, say: bool) -> Run:
    process.protect()
    settings = configfile.load(config, changes or {})
    if settings.needs_hub:
        process.allow_hub()
    return Run(settings, say=Printer() if say else silent)


def _opened(config: Path | str, changes: Changes, say: bool) -> AbstractContextManager[Run]:
    """The run, its input checked, to be written in by this process alone."""
    return _run(config, changes, say).held(config, changes)


def _make(command: str, config: Path | str, changes: Changes, say: bool, arms: Sequence[str] = ()) -> list[Made]:
    with _opened(config, changes, say) as run:
        return [
            Made(name, step.path, outcomes.line(of, name), step.manifest)
            for of, name in driver.run_command(run, command, arms)
            for step in [of.step(name)]
        ]


def _reported(run: Run, cells: Mapping[compare.Cell, Run] | None = None) -> Reported:
    report, page = results.write(run, cells)
    arms = tuple(
        Measured(
            row.name, row.macro_f1, row.difference.estimate if row.difference else None, row.auc, verdict(row, report)
        )
        for row in report.arms
    )
    return Reported(page, report.summary, arms, text_table(report))
