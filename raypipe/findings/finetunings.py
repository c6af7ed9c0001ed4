"""What each arm gains over labels alone, by fine-tuning: at few steps, the baseline may be under-trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.evaluation import uncertainty
from raypipe.evaluation.uncertainty import Estimate
from raypipe.findings.gates import compare_by_auc
from raypipe.findings.predictions import of_arms
from raypipe.notes.tasks import Task
from raypipe.runs import driver
from raypipe.runs.compare import DEFAULT
from raypipe.runs.run import Run

Cells = Mapping[str, Mapping[int | None, Sequence[Run]]]  # fine-tuning -> labels per task (None: all) -> one run a seed


@dataclass(frozen=True)
class Gain:
    """One arm after one fine-tuning. Estimates are shares in [0, 1]."""

    finetuning: str
    labels: int | None  # per task; None: all
    n_steps: int  # optimiser steps of fine-tuning, mean over seeds
    settings: str  # epochs and learning rate, of each seed where these differ
    arm: str
    macro_f1: Estimate
    auc: Estimate
    gain: Estimate | None = None  # macro F1 less that of labels alone; None: this is labels alone
    auc_gain: Estimate | None = None


def gains(cells: Cells, tasks: Sequence[Task], reference: str) -> Iterator[Gain]:
    """Every arm after every fine-tuning, by labels and steps; what is not finished for every seed is left out."""
    without = unfinished(cells)
    measured = [
        gain
        for finetuning, of_budget in cells.items()
        for budget, runs in of_budget.items()
        if (finetuning, budget) not in without
        for gain in _gains(finetuning, budget, runs, tasks, reference)
    ]
    yield from sorted(measured, key=lambda gain: (gain.labels is not None, gain.labels or 0, gain.n_steps))


def unfinished(cells: Cells) -> list[tuple[str, int | None]]:
    """Fine-tunings, and labels per task, that some seed lacks: over the others they would be another comparison."""
    every = [(finetuning, budget, len(runs)) for finetuning, of in cells.items() for budget, runs in of.items()]
    n_seeds = max((n for *_, n in every), default=0)
    return [(finetuning, budget) for finetuning, budget, n in every if n < n_seeds]


def left_out(cells: Cells) -> list[str]:
    """What is not finished for every seed and so in no line: fine-tunings, and single arms of those that are."""
    without = unfinished(cells)
    names = []
    for finetuning, of_budget in cells.items():
        for budget, runs in of_budget.items():
            name = finetuning if budget is None else f"{finetuning} of {budget} labels"
            if (finetuning, budget) in without:
                names.append(name)
            elif finetuning != DEFAULT:  # the others of the recipe's own are told with the headline
                measured = {arm: all(driver.is_measured(run, arm) for run in runs) for arm in runs[0].settings.arms}
                names += [f"{arm} after {name}" for arm, is_measured in measured.items() if not is_measured]
    return names


def _gains(
    finetuning: str, budget: int | None, runs: Sequence[Run], tasks: Sequence[Task], reference: str
) -> Iterator[Gain]:
    pooled, settings = of_arms(runs, tasks), runs[0].settings
    arms = {arm: pooled.tables[arm] for arm in pooled.tables if settings.arms[arm].finetune}
    if reference not in arms:
        return
    options: dict[str, Any] = {"seed": settings.seed, "seeds": pooled.seeds}
    pairs = [(arm, reference) for arm in arms if arm != reference]
    n_bootstrap = settings.evaluation.bootstrap
    f1 = uncertainty.compare_arms(arms, tasks, pairs, n_bootstrap=n_bootstrap, **options)
    auc = compare_by_auc(arms, tasks, pairs, n_bootstrap=n_bootstrap, **options)
    if auc is None:
        return
    f1_gain, auc_gain = ({d.arm: d.estimate for d in compared.differences} for compared in (f1, auc))
    n_steps = [run.step(f"finetune/{run.student_of(reference)}").manifest["steps"] for run in runs]
    trainings = dict.fromkeys(f"{_epochs(run)} at {run.settings.finetune.learning_rate:g}" for run in runs)
    for arm in arms:
        yield Gain(
            finetuning=finetuning,
            labels=budget,
            n_steps=round(float(np.mean(n_steps))),
            settings=", ".join(trainings),
            arm=arm,
            macro_f1=f1.arms[arm],
            auc=auc.arms[arm],
            gain=f1_gain.get(arm),
            auc_gain=auc_gain.get(arm),
        )


def _epochs(run: Run) -> str:
    """The length of a fine-tuning: steps where they are fixed, as with fewer labels, else epochs."""
    training = run.settings.finetune
    if training.max_steps is not None:
        return f"{training.max_steps} steps"
    return f"{training.epochs:g} epoch{'' if training.epochs == 1 else 's'}"
