"""What a clinician asks of each task: how often an answer is right, and how far its probability can be trusted.

The operating point is the answer that a student gives: no threshold is moved. Shares with their 95 % intervals: the
wider of a bootstrap over patients and runs, and of Wilson's for as many notes (Wilson 1927), because a bootstrap of 3
right out of 3 has no width at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from raypipe.evaluation.metrics import TaskRows, by_task
from raypipe.evaluation.resampling import TaskCounts, count_tasks, group_weights
from raypipe.evaluation.uncertainty import seed_weights
from raypipe.notes.tasks import Task
from raypipe.words import F32, F64, I64

RESAMPLES = 500  # at most: two digits of an interval's end need no more
BINS, LEAST_IN_BIN = 10, 20  # of a calibration plot: equally many answers in each
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval; the mean over runs. None: there is nothing that it could be a share of."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassRates:
    """One class of a task against all others."""

    label: str
    n: int  # notes with this label
    prevalence: Rate  # of all notes, those with this label
    sensitivity: Rate  # of the notes with this label, those that were given it
    specificity: Rate  # of the other notes, those that were not given it
    ppv: Rate  # of the notes that were given it, those with this label
    npv: Rate  # of the notes that were not given it, those with another label


@dataclass(frozen=True)
class TaskAnswers:
    """What the runs of an arm answered to one task."""

    task_id: str
    options: tuple[str, ...]
    n_notes: int
    confusion: tuple[tuple[float, ...], ...]  # [C, C + 1] notes by true label and answer, mean over runs; last: neither
    classes: tuple[ClassRates, ...]  # binary: the first option, which is the positive one
    only_answers: tuple[str, ...]  # of each run that gave all notes one answer, though their labels differ: the answer

    def given(self, label: int, worded: Callable[[str], str] = str) -> str:
        """What the notes of a label were taken for, most often first. `worded`: how a label is shown."""
        names = (*map(worded, self.options), "none of these")
        counts = sorted(zip(self.confusion[label], names, strict=True), key=lambda pair: -pair[0])
        return ", ".join(f"{name} {n:g}" if n == round(n) else f"{name} {n:.1f}" for n, name in counts if n)


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence."""

    confidence: float  # mean probability of the answer among the options
    right: Rate
    n: int  # answers, over all runs


@dataclass(frozen=True)
class Calibration:
    """Is an answer that is given with 80 % right in 80 of 100 cases? Over all tasks of an arm."""

    bins: tuple[Bin, ...]  # by confidence
    error: float  # mean distance of confidence and share of right answers, weighted by n


class Resamples:
    """The same draws of patients for every arm, task and share."""

    def __init__(self, n_groups: int, seeds: Sequence[int], n_bootstrap: int, seed: int) -> None:
        self.n, self.seeds, self.seed = min(n_bootstrap, RESAMPLES), np.asarray(seeds), seed
        self.weight_BG = group_weights(np.random.default_rng(seed), self.n, n_groups)

    def rate(self, part_GS: F64, whole_GS: F64, group_G: I64 | None = None) -> Rate:
        """The share `part / whole` of each run, from sums per group; runs where the whole is empty are left out.

        The interval is then one of as many runs as are left: of one, it holds no noise of training.
        """
        is_defined_S = whole_GS.sum(axis=0) > 0
        if not is_defined_S.any():
            return Rate(None, None, None)
        part_GS, whole_GS = part_GS[:, is_defined_S], whole_GS[:, is_defined_S]
        value = float(np.mean(part_GS.sum(axis=0) / whole_GS.sum(axis=0)))
        low, high = wilson(value, float(whole_GS.sum(axis=0).mean()))
        weight_BG = self.weight_BG if group_G is None else self.weight_BG[:, group_G]
        run_BS = seed_weights(self.n, self.seeds[is_defined_S].tolist(), self.seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn_BS = (weight_BG @ part_GS) / (weight_BG @ whole_GS)
            drawn_B = (drawn_BS * run_BS).sum(axis=1)
        return _widened(value, (low, high), drawn_B)

    def pooled(self, part_GS: F64, whole_GS: F64) -> Rate:
        """The share of all runs together: a run counts by its cases, which may be few in one and many in another.

        Runs are weighted as everywhere; the weights may be negative, so the share is taken to first order in them.
        """
        value = float(part_GS.sum() / whole_GS.sum())
        ends = wilson(value, float(whole_GS.sum()) / len(self.seeds))  # runs answer about the same notes
        part_BS, whole_BS = self.weight_BG @ part_GS, self.weight_BG @ whole_GS
        run_BS = seed_weights(self.n, self.seeds.tolist(), self.seed)
        more_BS = run_BS / run_BS.mean(axis=0) - 1  # of a run in a resample, relative to its share
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn_B = part_BS.sum(axis=1) / whole_BS.sum(axis=1)
            by_run_B = (more_BS * (part_BS - drawn_B[:, None] * whole_BS)).sum(axis=1) / whole_BS.sum(axis=1)
        return _widened(value, ends, drawn_B + by_run_B)


def _widened(value: float, ends: tuple[float, float], drawn_B: F64) -> Rate:
    """The wider of an interval and that of the resamples in which the share is defined."""
    low, high = ends
    drawn_B = drawn_B[np.isfinite(drawn_B)]
    if len(drawn_B):
        lowest, highest = np.clip(np.quantile(drawn_B, [0.025, 0.975]), 0, 1)
        low, high = min(low, float(lowest)), max(high, float(highest))
    return Rate(value, low, high)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` independent cases."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def answers(
    runs: Sequence[pa.Table], tasks: Sequence[Task], seeds: Sequence[int], n_bootstrap: int = RESAMPLES, seed: int = 0
) -> dict[str, TaskAnswers]:
    """What an arm answers to each task, by task id. `runs`: its rows.PREDICTIONS; `seeds`: the seed of each."""
    counts, n_groups = count_tasks({"": runs}, tasks, "macro_f1")
    resamples = Resamples(n_groups, seeds, n_bootstrap, seed)
    of_runs = [by_task(table, tasks) for table in runs]
    rows_of = {same[0].task.id: list(same) for same in zip(*of_runs, strict=True)}  # a task's rows in every run
    return {c.task_id: _task_answers(c, rows_of[c.task_id], resamples) for c in counts}


def _task_answers(counts: TaskCounts, runs: Sequence[TaskRows], resamples: Resamples) -> TaskAnswers:
    options = runs[0].task.options
    confusion_SCK = np.stack([_confusion(rows) for rows in runs])
    only = [options[k] if (k := int(np.flatnonzero(c.sum(axis=0))[0])) < len(options) else "none" for c in confusion_SCK
            if np.count_nonzero(c.sum(axis=0)) == 1 < np.count_nonzero(c.sum(axis=1))]  # fmt: skip
    shown = options[:1] if len(options) == 2 else options
    return TaskAnswers(
        counts.task_id,
        options,
        len(runs[0].gold_N),
        tuple(tuple(row) for row in confusion_SCK.mean(axis=0).tolist()),
        tuple(_class_rates(label, c, counts, resamples) for c, label in enumerate(shown)),
        tuple(only),
    )


def _confusion(rows: TaskRows) -> F64:
    """Notes by true label and answer; the last column is for what is no option."""
    n = len(rows.task.options)
    table = np.zeros((n, n + 1))
    np.add.at(table, (rows.gold_N, np.where(rows.predicted_N < 0, n, rows.predicted_N)), 1)
    return table


def _class_rates(label: str, c: int, counts: TaskCounts, resamples: Resamples) -> ClassRates:
    called_GS, right_GS = _float(counts.called_GSL[:, :, c]), _float(counts.right_GSL[:, :, c])
    gold_GS = np.broadcast_to(_float(counts.gold_GL[:, c])[:, None], called_GS.shape)
    all_GS = np.broadcast_to(_float(counts.gold_GL).sum(axis=1)[:, None], called_GS.shape)
    rightly_not_GS = all_GS - gold_GS - called_GS + right_GS

    def rate(part_GS: F64, whole_GS: F64) -> Rate:
        return resamples.rate(part_GS, whole_GS, counts.group_G)

    return ClassRates(
        label,
        int(counts.gold_GL[:, c].sum()),
        prevalence=rate(gold_GS, all_GS),
        sensitivity=rate(right_GS, gold_GS),
        specificity=rate(rightly_not_GS, all_GS - gold_GS),
        ppv=rate(right_GS, called_GS),
        npv=rate(rightly_not_GS, all_GS - called_GS),
    )


def calibration(
    runs: Sequence[pa.Table], tasks: Sequence[Task], seeds: Sequence[int], n_bootstrap: int = RESAMPLES, seed: int = 0
) -> Calibration:
    """Confidence and share of right answers of an arm, all tasks together."""
    of_runs = [by_task(table, tasks) for table in runs]
    names = pc.unique(pa.chunked_array([rows.groups for rows in of_runs[0]]))
    columns = [_confidences(rows, names, s) for s, of_run in enumerate(of_runs) for rows in of_run]
    confidence_N, right_N, group_N, run_N = (np.concatenate(column) for column in zip(*columns, strict=True))
    n_bins = max(1, min(BINS, len(confidence_N) // LEAST_IN_BIN))
    edges = np.unique(np.quantile(confidence_N, np.linspace(0, 1, n_bins + 1)[1:-1]))
    bin_N = np.digitize(confidence_N, edges, right=True)  # equal confidences stay together
    resamples = Resamples(len(names), seeds, n_bootstrap, seed)
    bins = []
    for part in (np.flatnonzero(bin_N == i) for i in np.unique(bin_N)):
        right_GS, all_GS = np.zeros((2, len(names), len(runs)))
        np.add.at(all_GS, (group_N[part], run_N[part]), 1)
        np.add.at(right_GS, (group_N[part], run_N[part]), right_N[part])
        bins.append(Bin(float(confidence_N[part].mean()), resamples.pooled(right_GS, all_GS), len(part)))
    distance = [abs(b.confidence - b.right.value) * b.n for b in bins if b.right.value is not None]
    return Calibration(tuple(bins), float(sum(distance) / len(confidence_N)))


def _confidences(rows: TaskRows, names: pa.Array, run: int) -> tuple[F64, F64, I64, I64]:
    """Probability of the answer among the options, whether it is right, its group, its run; of each note."""
    p_NC = softmax(rows.scores_NC, axis=1)
    answer_N = np.where(rows.predicted_N < 0, p_NC.argmax(axis=1), rows.predicted_N)
    right_N = (rows.predicted_N == rows.gold_N).astype(np.float64)
    group_N = np.asarray(pc.index_in(rows.groups, value_set=names).to_numpy(), np.int64)
    return p_NC[np.arange(len(answer_N)), answer_N], right_N, group_N, np.full(len(answer_N), run, np.int64)


def _float(counts: F32) -> F64:
    return np.asarray(counts, np.float64)
