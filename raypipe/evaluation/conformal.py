"""Prediction sets that hold the true label at a chosen rate: split (inductive) conformal prediction.

Per task: a score says how badly an option fits a note; its quantile over a calibration split is the threshold, and a
note's set holds the options that fit no worse. If calibration and evaluation notes are exchangeable, the set holds the
true label with probability >= 1 - alpha, whatever the model (Vovk et al. 2005, section 4.2). The probability is over
draws of both splits and all notes: it need not hold for one label, one group of patients, or notes of another year.
docs/method.md, section 11.8.

    lac  1 - p(label): the smallest sets on average (Sadinle et al. 2019); empty where no option fits
    aps  probability of all likelier options, and a random part of the label's own (Romano et al. 2020,
         2006.02544, section 2): sets grow with the model's doubt, so that coverage is more even over notes

p is the softmax of the scores of an option over those of its task. The set of a note without scores is all options.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from scipy.special import softmax

from raypipe.evaluation.metrics import TaskRows, by_task
from raypipe.hashing import generator
from raypipe.notes.tasks import Task
from raypipe.words import F64, Bools

Score = Literal["lac", "aps"]


@dataclass(frozen=True)
class TaskSets:
    """The sets of one task."""

    task_id: str
    n_calibration: int
    n: int  # evaluation notes
    threshold: float  # inf: too few calibration notes for this alpha, every set holds all options
    coverage: float  # share of sets that hold the true label
    size: float  # mean number of options in a set
    options: int
    singletons: float  # share of sets of one option: the answers that can stand alone


@dataclass(frozen=True)
class Sets:
    """All tasks of one arm: unweighted means over the tasks that have calibration labels."""

    alpha: float
    score: Score
    coverage: float
    size: float
    singletons: float
    tasks: tuple[TaskSets, ...]


def conformal(
    calibration: pa.Table, evaluated: pa.Table, tasks: Sequence[Task], alpha: float, score: Score = "lac", seed: int = 0
) -> Sets | None:
    """Coverage and size of the sets of `evaluated`, calibrated on `calibration`; both `rows.PREDICTIONS` of one model.

    A task without calibration labels has no sets; None if no task has any. Raises ValueError as `metrics.by_task` does.
    """
    if not len(calibration):
        return None
    calibration_of = {of_task.task.id: of_task for of_task in by_task(calibration, tasks)}
    sets = tuple(
        _task_sets(calibration_of[of_task.task.id], of_task, alpha, score, seed)
        for of_task in by_task(evaluated, tasks)
        if of_task.task.id in calibration_of
    )
    if not sets:
        return None
    coverage, size, singletons = np.mean([(t.coverage, t.size, t.singletons) for t in sets], axis=0).tolist()
    return Sets(alpha, score, coverage, size, singletons, sets)


def averaged(runs: Sequence[Sets]) -> Sets:
    """Means over runs of one arm with the same tasks."""
    numbers = ("threshold", "coverage", "size", "singletons")
    tasks = tuple(
        replace(same[0], **{name: float(np.mean([getattr(t, name) for t in same])) for name in numbers})
        for same in zip(*(sets.tasks for sets in runs), strict=True)
    )
    coverage, size, singletons = np.mean([(s.coverage, s.size, s.singletons) for s in runs], axis=0).tolist()
    return Sets(runs[0].alpha, runs[0].score, coverage, size, singletons, tasks)


def threshold(score_N: F64, alpha: float) -> float:
    """The k-th smallest calibration score, k = ceil((n + 1)(1 - alpha)); inf where there are fewer than k."""
    k = math.ceil((len(score_N) + 1) * (1 - alpha) - 1e-9)  # .9 * 10 is a little more than 9
    return float(np.sort(score_N)[k - 1]) if k <= len(score_N) else math.inf


def nonconformity(probability_NC: F64, score: Score, uniform_N: F64) -> F64:
    """How badly each option fits [N, C]. `uniform_N` in [0, 1): of aps, the share of an option's own probability."""
    if score == "lac":
        return 1 - probability_NC
    order_NC = np.argsort(-probability_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(probability_NC, order_NC, axis=1)
    before_NC = np.cumsum(sorted_NC, axis=1) - sorted_NC
    out_NC = np.empty_like(probability_NC)
    np.put_along_axis(out_NC, order_NC, before_NC + uniform_N[:, None] * sorted_NC, axis=1)
    return out_NC


def _task_sets(calibration: TaskRows, evaluated: TaskRows, alpha: float, score: Score, seed: int) -> TaskSets:
    own_N = _scores(calibration, score, seed)[np.arange(len(calibration.gold_N)), calibration.gold_N]
    own_N[~_has_scores(calibration)] = math.inf
    limit = threshold(own_N, alpha)
    sets_NC = (_scores(evaluated, score, seed) <= limit) | ~_has_scores(evaluated)[:, None]
    sizes_N = sets_NC.sum(axis=1)
    return TaskSets(
        evaluated.task.id,
        len(own_N),
        len(sizes_N),
        limit,
        coverage=float(sets_NC[np.arange(len(sizes_N)), evaluated.gold_N].mean()),
        size=float(sizes_N.mean()),
        options=sets_NC.shape[1],
        singletons=float((sizes_N == 1).mean()),
    )


def _scores(of_task: TaskRows, score: Score, seed: int) -> F64:
    draws = [generator("aps", seed, of_task.task.id, note_id).random() for note_id in of_task.note_ids.to_pylist()]
    return nonconformity(softmax(of_task.scores_NC, axis=1), score, np.asarray(draws))


def _has_scores(of_task: TaskRows) -> Bools:
    """Notes that the model answered: `by_task` gives the others equal scores and no prediction."""
    return np.asarray(of_task.predicted_N >= 0)
