"""`raypipe compare`: the arms of a config over seeds and label budgets, into one table that says what it can.

A cell is a run of its own, one for each seed and label budget (`cells/seed0-all`, `cells/seed0-50`, ...): its own
subset of the labels, order, scorer, masks and reconstructions. All cells share the backbone, and each arm of a cell has
`repeats` fine-tunings. One cell per seed has a quarter of the labels and the labels-only arm alone, for the gate that
four times the labels must help. Every cell takes as many optimiser steps for fine-tuning, whatever its labels.

Arms are learned and evaluated side by side as Ray tasks, `resources.concurrent_arms` at once, each in one process;
with more than one training worker by Ray Train, one after the other. The same command again does what is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pyarrow.compute as pc

from raypipe import config, experiment, pipeline
from raypipe.errors import ExitCode, InputError, Problem
from raypipe.inline import Inline
from raypipe.run import SCORER, Run

QUARTER = 4
SEED_STRIDE = 1000  # repeats count up from a seed; seeds must not meet


@dataclass(frozen=True)
class Cell:
    """One run of a comparison."""

    seed: int
    budget: int | None  # training labels per task; None: all
    labels_only: bool = False

    @property
    def name(self) -> str:
        """Its folder."""
        return f"seed{self.seed}-{self.budget or 'all'}"


def compare(run: Run) -> dict[Cell, Run]:
    """Run what is not there yet; returns the runs of all cells, for the report (results.py)."""
    if run.pretrains and not run.is_done("pretrain"):
        experiment.pretrain(run)
    opened = {cell: Run(settings_of(cell, run), base=run) for cell in cells(run)}
    for cell in opened.values():
        cell.began = run.began
    unprepared = [(cell,) for cell in opened.values() if not _is_prepared(cell)]
    _each(run, experiment.prepare, unprepared, in_tasks=run.settings.comparison.seeds_in_tasks)
    unlearned = [(cell, arm) for cell in opened.values() for arm in cell.settings.arms if not _is_measured(cell, arm)]
    _each(run, _learn, unlearned, in_tasks=run.settings.resources.training_workers == 1)
    return opened


def cells(run: Run) -> list[Cell]:
    """All cells, seed by seed."""
    n_labels, wanted = labels_per_task(run), run.settings.comparison
    found = []
    for seed in range(wanted.seeds):
        found += [Cell(seed, None), *(Cell(seed, budget) for budget in wanted.budgets if budget < n_labels)]
        if n_labels // QUARTER not in wanted.budgets:
            found.append(Cell(seed, n_labels // QUARTER, labels_only=True))
    return found


def labels_per_task(run: Run) -> int:
    """Training labels in use, the median over tasks."""
    train = run.corpus.labels.filter(pc.equal(run.corpus.labels["split"], "train"))
    return int(median(pc.value_counts(train["task_id"]).field("counts").to_pylist()))


def settings_of(cell: Cell, run: Run) -> config.Config:
    """The run's settings with the cell's seed, budget and folder."""
    settings, shift = run.settings, SEED_STRIDE * cell.seed
    data, finetune, arms = settings.data.model_copy(update={"label_seed": cell.seed}), settings.finetune, settings.arms
    epochs = finetune.epochs
    if cell.budget is not None:
        data = data.model_copy(update={"max_labelled": cell.budget})
        epochs *= labels_per_task(run) / cell.budget
    if cell.labels_only:
        arms = {name: arm for name, arm in arms.items() if run.is_labels_only(name)}
    return settings.model_copy(
        update={
            "name": cell.name,
            "runs": str(run.folder / "cells"),
            "seed": settings.seed + shift,
            "data": data,
            "finetune": finetune.model_copy(update={"seed": finetune.seed + shift, "epochs": epochs}),
            "train": settings.train.model_copy(update={"seed": settings.train.seed + shift}),
            "arms": arms,
        }
    )


def _each(run: Run, work: Callable[..., None], units: Sequence[tuple[Any, ...]], in_tasks: bool) -> None:
    """`work` on every unit (a cell, and what of it); a unit that fails does not stop the others."""
    if not units:
        return
    cluster, failed = run.cluster, []
    if in_tasks and not isinstance(cluster, Inline):
        at_once, cpus = run.settings.resources.concurrent_arms, run.settings.resources.cpus_per_worker
        todo = [(cell.inline(), *rest) for cell, *rest in units]
        outcomes = cluster.each(work, todo, at_once, cluster.worker(at_once, cpus, 1))
    else:
        outcomes = _one_by_one(work, units)
    for n, (unit, error) in enumerate(outcomes, start=1):
        name = "/".join([units[unit][0].settings.name, *map(str, units[unit][1:])])
        run.say(f"{n}/{len(units)} {name}: {'done' if error is None else type(error).__name__}")
        if error is not None:
            failed.append(Problem(name, str(error) if isinstance(error, InputError) else type(error).__name__))
    if failed:
        raise InputError(failed, ExitCode.PARTIAL)


def _one_by_one(work: Callable[..., None], units: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Exception | None]]:
    for n, unit in enumerate(units):
        try:
            work(*unit)
            yield n, None
        except Exception as error:
            yield n, error


def _is_prepared(cell: Run) -> bool:
    steps = [f"finetune/{SCORER}"]
    steps += ["train/rows"] if pipeline.masking_of(cell.settings) else []
    steps += ["pseudo"] if pipeline.pseudo_of(cell.settings) else []
    variants = [cell.of(arm) for arm in cell.settings.arms if cell.of(arm) is not cell]
    return all(cell.is_done(step) for step in steps) and all(map(_is_prepared, variants))


def _is_measured(cell: Run, arm: str) -> bool:
    return all(cell.of(arm).is_done(f"evaluate/{student}") for student in cell.students(arm))


def _learn(run: Run, arm: str) -> None:
    """Reconstruction, fine-tunings and predictions of an arm of a cell."""
    experiment.learn(run, arm)
    experiment.evaluate(run, arm)
    run = run.of(arm)
    if not run.settings.comparison.keep_models:  # of repeats, the predictions are what counts
        for student in run.students(arm)[1:]:
            shutil.rmtree(run.step(f"finetune/{student}").folder / "model", ignore_errors=True)


def by_budget(opened: dict[Cell, Run]) -> tuple[list[Run], dict[int, list[Run]]]:
    """Runs with all labels, one per seed; and those with fewer, by labels per task."""
    fewer: dict[int, list[Run]] = {}
    for cell, run in opened.items():
        if cell.budget is not None:
            fewer.setdefault(cell.budget, []).append(run)
    return [run for cell, run in opened.items() if cell.budget is None], fewer
