"""Resamples of test groups, and sign flips of tasks, as array arithmetic, for evaluation/uncertainty.py.

Per task, the counts that a measure needs are summed per group once. A resample is then a row of group weights [G], and
B resamples of S systems are one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.evaluation.metrics import TaskRows, by_task
from raypipe.notes.tasks import Task
from raypipe.words import F32, F64, I64, Bools

Measure = Literal["macro_f1", "auc"]
EXACT_TASKS = 16  # up to here all 2^T sign flips are tried
FLIPS = 10_000


@dataclass(frozen=True)
class TaskCounts:
    """One task scored by S systems (all runs of all arms, side by side). `values` accepts any group weights."""

    task_id: str
    group_G: I64  # index of each of its groups among the groups of all tasks
    note_group_N: I64  # index into group_G
    gold_GL: F32  # notes by gold label
    right_GSL: F32  # true positives
    called_GSL: F32  # notes by predicted label
    # per label (binary: the first option alone), the positives and all systems' scores; empty unless AUC is measured
    rankings: tuple[tuple[Bools, F64], ...]

    @property
    def n_systems(self) -> int:
        return self.right_GSL.shape[1]

    def values(self, weight_BG: F32) -> F64:
        """The measure of each system [B, S] if group g counts weight_BG[:, g] times; nan where it is not defined."""
        return self._auc(weight_BG) if self.rankings else self._macro_f1(weight_BG)

    def _macro_f1(self, weight_BG: F32) -> F64:
        n_labels = self.right_GSL.shape[2]
        gold_BL = weight_BG @ self.gold_GL
        right_BSL = (weight_BG @ _flat(self.right_GSL)).reshape(-1, self.n_systems, n_labels)
        called_BSL = (weight_BG @ _flat(self.called_GSL)).reshape(-1, self.n_systems, n_labels)
        f1_BSL = 2 * right_BSL / np.maximum(gold_BL[:, None, :] + called_BSL, 1)
        has_gold_B1L = gold_BL[:, None, :] > 0  # macro F1 is over the labels with gold support in the resample
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sum(f1_BSL * has_gold_B1L, axis=2) / has_gold_B1L.sum(axis=2))

    def _auc(self, weight_BG: F32) -> F64:
        weight_BN = weight_BG[:, self.note_group_N]
        return _nan_mean(np.stack([_weighted_auc(weight_BN, *ranking) for ranking in self.rankings]))


def group_weights(rng: np.random.Generator, n_resamples: int, n_groups: int) -> F32:
    """How often each group occurs in each resample [B, G]: G draws with replacement."""
    drawn_BG = rng.integers(n_groups, size=(n_resamples, n_groups)) + np.arange(n_resamples)[:, None] * n_groups
    counts = np.bincount(drawn_BG.ravel(), minlength=n_resamples * n_groups)
    return counts.reshape(n_resamples, n_groups).astype(np.float32)


def sign_flip_p(difference_T: F64, seed: int = 0) -> float:
    """Two-sided p of "the differences of the tasks are symmetric around 0", from their mean under random signs.

    All 2^T signs up to 16 tasks; else 10,000 random ones, and the observed one counts as one of them.
    """
    n_tasks = len(difference_T)
    exact = n_tasks <= EXACT_TASKS
    if exact:
        is_flipped = (np.arange(2**n_tasks)[:, None] >> np.arange(n_tasks)) & 1
    else:
        is_flipped = np.random.default_rng(seed).integers(2, size=(FLIPS, n_tasks))
    means = np.abs((1 - 2 * is_flipped) @ difference_T)
    n_as_large = int(np.sum(means >= np.abs(difference_T.sum()) - 1e-9))  # sums in another order differ by rounding
    return n_as_large / 2**n_tasks if exact else (n_as_large + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def count_tasks(
    arms: Mapping[str, Sequence[pa.Table]], tasks: Sequence[Task], measure: Measure
) -> tuple[list[TaskCounts], int]:
    """Counts of all tasks, systems in the order of the arms and their runs; and the number of groups of all tasks.

    Raises ValueError if the systems were not scored on the same tasks, notes and labels. Tasks on which the measure
    is not defined (AUC with one gold label) are left out.
    """
    systems = [by_task(table, tasks) for runs in arms.values() for table in runs]
    if not all(_is_paired(rows, systems[0]) for rows in systems):
        raise ValueError("the arms were not scored on the same tasks, notes, groups and labels: nothing can be paired")
    names = pc.unique(pa.chunked_array([rows.groups for rows in systems[0]]))
    per_task = [_count(list(same_task), names, measure) for same_task in zip(*systems, strict=True)]
    defined = [c for c in per_task if np.isfinite(c.values(np.ones((1, len(c.group_G)), dtype=np.float32))).all()]
    return defined, len(names)


def _is_paired(rows: list[TaskRows], others: list[TaskRows]) -> bool:
    return len(rows) == len(others) and all(
        a.task.id == b.task.id
        and a.note_ids.equals(b.note_ids)
        and a.groups.equals(b.groups)
        and np.array_equal(a.gold_N, b.gold_N)
        for a, b in zip(rows, others, strict=True)
    )


def _count(systems: list[TaskRows], names: pa.Array, measure: Measure) -> TaskCounts:
    first = systems[0]
    n_labels = len(first.task.options)
    group_G, note_group_N = np.unique(pc.index_in(first.groups, value_set=names).to_numpy(), return_inverse=True)
    right, called = (np.zeros((len(group_G), len(systems), n_labels), dtype=np.float32) for _ in range(2))
    for s, rows in enumerate(systems):
        is_right = rows.gold_N == rows.predicted_N
        is_option = rows.predicted_N >= 0
        np.add.at(right[:, s], (note_group_N[is_right], rows.gold_N[is_right]), 1)
        np.add.at(called[:, s], (note_group_N[is_option], rows.predicted_N[is_option]), 1)
    gold = np.zeros((len(group_G), n_labels), dtype=np.float32)
    np.add.at(gold, (note_group_N, first.gold_N), 1)
    rankings = _rankings(systems) if measure == "auc" else ()
    return TaskCounts(first.task.id, group_G, note_group_N, gold, right, called, rankings)


def _rankings(systems: list[TaskRows]) -> tuple[tuple[Bools, F64], ...]:
    first = systems[0]
    if len(first.task.options) == 2:
        return ((first.positive, np.stack([rows.margin for rows in systems])),)
    scores_SNC = np.stack([rows.scores_NC for rows in systems])
    return tuple((first.gold_N == c, scores_SNC[:, :, c]) for c in range(scores_SNC.shape[2]))


def _weighted_auc(weight_BN: F32, positive_N: Bools, score_SN: F64) -> F32:
    positive_BP, negative_BQ = weight_BN[:, positive_N], weight_BN[:, ~positive_N]
    pairs_B = positive_BP.sum(axis=1) * negative_BQ.sum(axis=1)
    wins = []
    for score_N in score_SN:
        higher_PQ = np.sign(score_N[positive_N][:, None] - score_N[~positive_N][None, :]).astype(np.float32) / 2 + 0.5
        wins.append(np.einsum("bq,bq->b", positive_BP @ higher_PQ, negative_BQ))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.stack(wins, axis=1) / pairs_B[:, None])


def _flat(counts_GSL: F32) -> F32:
    return counts_GSL.reshape(len(counts_GSL), -1)


def _nan_mean(values: F32) -> F64:
    """Mean over the first axis without the nans; nan, silently, where there are only nans."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0))
