"""From predictions to measures of each task and of a run. Shares, not points: reports multiply by 100.

Primary: macro F1 of each task, then the unweighted mean over tasks. Beside it, because macro F1 at the model's own
threshold also measures how many positives it calls: AUC, and macro F1 at two other thresholds. docs/method.md, section
11.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import log_softmax

from raypipe.notes.tasks import Task
from raypipe.rows import counts
from raypipe.words import F64, I64, Bools

FOLDS = 5
MIN_SCORED_NOTES = 20  # labels that a task needs in the scored split


@dataclass(frozen=True)
class TaskMetrics:
    """One task of one run. None: not defined (one gold label only; or a binary measure of a multiclass task)."""

    task_id: str
    macro_f1: float  # over labels with gold support
    auc: float | None  # binary: of the score margin; multiclass: one label against the rest, mean over labels
    matched_f1: float | None  # macro F1 if as many notes are called positive as are positive; binary only
    cv_f1: float | None  # macro F1 at thresholds set by cross-validation over groups; binary only
    accuracy: float
    support: dict[str, int]  # notes by gold label


@dataclass(frozen=True)
class Metrics:
    """One run: unweighted means over the tasks where the measure is defined, and the tasks themselves."""

    macro_f1: float
    pooled_macro_f1: float  # TP, FP and FN of each label summed over tasks; mean over labels
    auc: float | None
    matched_f1: float | None
    cv_f1: float | None
    accuracy: float
    tasks: tuple[TaskMetrics, ...]


@dataclass(frozen=True)
class TaskRows:
    """The predictions of one task as arrays, sorted by note id."""

    task: Task
    note_ids: pa.StringArray
    groups: pa.StringArray  # the note's group, or a group of its own
    gold_N: I64  # index into task.options
    predicted_N: I64  # the same; -1: not one of the options, or no prediction
    scores_NC: F64

    @property
    def positive(self) -> Bools:  # [N]
        """Binary tasks: the first option is the positive one (swapping the two changes no measure of this file)."""
        return self.gold_N == 0

    @property
    def group(self) -> I64:  # [N]
        """The groups as numbers from 0."""
        return np.asarray(self.groups.dictionary_encode().indices.to_numpy(), dtype=np.int64)

    @property
    def margin(self) -> F64:  # [N]
        """Binary tasks: score of the first option less that of the second, nats."""
        return self.scores_NC[:, 0] - self.scores_NC[:, 1]


def measurable(tasks: Sequence[Task], labels: pa.Table) -> list[Task]:
    """Tasks with two classes and `MIN_SCORED_NOTES` labels (rows.LABELS of the split); on others macro F1 is noise.

    If all have few notes, those with two classes; if none has, all.
    """
    counts_of: dict[str, Counter[str]] = {task.id: Counter() for task in tasks}
    for row in labels.select(["task_id", "label"]).to_pylist():
        counts_of[row["task_id"]][row["label"]] += 1
    varied = [task for task in tasks if len(counts_of[task.id]) > 1]
    return [task for task in varied if counts_of[task.id].total() >= MIN_SCORED_NOTES] or varied or list(tasks)


def of_tasks(predictions: pa.Table, tasks: Sequence[Task]) -> pa.Table:
    """The rows of these tasks alone, of any table with a `task_id`."""
    return predictions.filter(pc.is_in(predictions["task_id"], pa.array([task.id for task in tasks], pa.string())))


def evaluate(predictions: pa.Table, tasks: Sequence[Task]) -> Metrics:
    """All measures of one run from its `rows.PREDICTIONS`; scores are in the order of each task's options.

    Raises ValueError for what `by_task` refuses.
    """
    rows = by_task(predictions, tasks)
    per_task = tuple(_task_metrics(r) for r in rows)
    return Metrics(
        macro_f1=float(np.mean([t.macro_f1 for t in per_task])),
        pooled_macro_f1=_pooled_macro_f1(rows),
        auc=mean([t.auc for t in per_task]),
        matched_f1=mean([t.matched_f1 for t in per_task]),
        cv_f1=mean([t.cv_f1 for t in per_task]),
        accuracy=float(np.mean([t.accuracy for t in per_task])),
        tasks=per_task,
    )


def by_task(predictions: pa.Table, tasks: Sequence[Task]) -> list[TaskRows]:
    """Split a `rows.PREDICTIONS` table by task, in the order of `tasks`; tasks without rows are left out.

    A note without prediction (null) counts as wrong; without scores, as undecided (all options 0). Raises ValueError
    for an empty table, unknown tasks, gold labels outside the options, a wrong number of scores and duplicates.
    """
    ordered = predictions.sort_by([("task_id", "ascending"), ("note_id", "ascending")]).combine_chunks()
    rows_of, first = {}, 0
    for task_id, n in counts(ordered["task_id"]).items():
        rows_of[task_id] = ordered.slice(first, n)
        first += n
    unknown = set(rows_of) - {task.id for task in tasks}
    if unknown or not rows_of:
        raise ValueError(f"predictions of unknown tasks: {sorted(unknown)}" if unknown else "there are no predictions")
    return [_task_rows(task, rows_of[task.id]) for task in tasks if task.id in rows_of]


def macro_f1(gold_N: I64, predicted_N: I64, n_labels: int) -> float:
    """Mean F1 over the labels that occur in `gold_N`; a prediction outside them costs the true label recall."""
    n_gold = np.bincount(gold_N, minlength=n_labels)
    n_predicted = np.bincount(predicted_N[predicted_N >= 0], minlength=n_labels)
    n_right = np.bincount(gold_N[gold_N == predicted_N], minlength=n_labels)
    has_gold = n_gold > 0
    return float(np.mean(2 * n_right[has_gold] / (n_gold + n_predicted)[has_gold]))


def auc(positive_N: Bools, score_N: F64) -> float | None:
    """Chance that a positive scores above a negative, ties counting half; None if either is missing."""
    from scipy.stats import rankdata  # here, because it is slow to import, and every worker imports this file

    n_positive = int(positive_N.sum())
    n_negative = len(positive_N) - n_positive
    if not n_positive or not n_negative:
        return None
    wins = rankdata(score_N)[positive_N].sum() - n_positive * (n_positive + 1) / 2
    return float(wins / (n_positive * n_negative))


def matched_f1(positive_N: Bools, margin_N: F64) -> float:
    """Macro F1 at the threshold that calls as many notes positive as are (the nearest number that ties allow)."""
    thresholds, n_called = _cuts(margin_N)
    nearest = thresholds[np.argmin(np.abs(n_called - positive_N.sum()))]
    return _binary_f1(positive_N, margin_N > nearest)


def cv_f1(positive_N: Bools, margin_N: F64, group_N: I64) -> float | None:
    """Macro F1 if each fold of groups is judged at the threshold that is best on the other folds.

    No note meets a threshold that its own label, or that of its group, helped to set. None with fewer than 2 groups.
    """
    names, group_N = np.unique(group_N, return_inverse=True)
    folds = min(FOLDS, len(names))
    if folds < 2:
        return None
    fold_N = np.random.default_rng(0).permutation(len(names))[group_N] % folds
    called_N = np.zeros(len(margin_N), dtype=bool)
    for fold in range(folds):
        inside = fold_N == fold
        called_N[inside] = margin_N[inside] > _best_threshold(positive_N[~inside], margin_N[~inside])
    return _binary_f1(positive_N, called_N)


def _task_rows(task: Task, rows: pa.Table) -> TaskRows:
    n_options = len(task.options)
    if pc.count_distinct(rows["note_id"], mode="all").as_py() < rows.num_rows:
        raise ValueError(f"task {task.id!r} has several predictions for one note")
    gold_N, predicted_N = (_index_of(rows[name], task.options) for name in ("label", "predicted"))
    if (gold_N < 0).any():
        raise ValueError(f"task {task.id!r} has gold labels that are not among its options")
    undecided = pa.scalar([0.0] * n_options, type=rows["scores"].type)
    scores = pc.if_else(pc.is_null(rows["scores"]), undecided, rows["scores"])
    if pc.any(pc.not_equal(pc.list_value_length(scores), n_options)).as_py():
        raise ValueError(f"task {task.id!r} has {n_options} options, but some note has another number of scores")
    # the prefix keeps a note without group apart from a group of the same name
    own = pc.binary_join_element_wise("note", rows["note_id"], " ")
    groups = pc.coalesce(pc.binary_join_element_wise("group", rows["group_id"], " "), own)
    scores_NC = pc.list_flatten(scores).to_numpy().astype(np.float64).reshape(-1, n_options)
    if n_options > 2:  # how likely a note makes any of the options must not rank it; a margin does not hold it
        scores_NC = log_softmax(scores_NC, axis=1)
    return TaskRows(
        task=task,
        note_ids=rows["note_id"].combine_chunks(),
        groups=groups.combine_chunks(),
        gold_N=gold_N,
        predicted_N=predicted_N,
        scores_NC=scores_NC,
    )


def _index_of(labels: pa.ChunkedArray, options: Sequence[str]) -> I64:
    """Position of each label among the options; -1 for others."""
    index = pc.index_in(labels, value_set=pa.array(options, pa.string()))
    return np.asarray(pc.fill_null(index, -1).to_numpy(), dtype=np.int64)


def _task_metrics(rows: TaskRows) -> TaskMetrics:
    n_labels = len(rows.task.options)
    is_binary = n_labels == 2
    has_both = is_binary and 0 < int(rows.positive.sum()) < len(rows.gold_N)
    if is_binary:
        area = auc(rows.positive, rows.margin)
    else:
        area = mean([auc(rows.gold_N == c, rows.scores_NC[:, c]) for c in range(n_labels)])
    return TaskMetrics(
        task_id=rows.task.id,
        macro_f1=macro_f1(rows.gold_N, rows.predicted_N, n_labels),
        auc=area,
        matched_f1=matched_f1(rows.positive, rows.margin) if has_both else None,
        cv_f1=cv_f1(rows.positive, rows.margin, rows.group) if has_both else None,
        accuracy=float(np.mean(rows.gold_N == rows.predicted_N)),
        support=dict(zip(rows.task.options, np.bincount(rows.gold_N, minlength=n_labels).tolist(), strict=True)),
    )


def _pooled_macro_f1(rows: Sequence[TaskRows]) -> float:
    """Labels are pooled by name: the "yes" of all tasks is one label."""
    names = sorted({option for r in rows for option in r.task.options})
    code = {name: i for i, name in enumerate(names)}
    # one more entry at the end, so that -1 (outside the options) stays -1
    lookups = [np.asarray([*(code[option] for option in r.task.options), -1]) for r in rows]
    gold = np.concatenate([lookup[r.gold_N] for lookup, r in zip(lookups, rows, strict=True)])
    predicted = np.concatenate([lookup[r.predicted_N] for lookup, r in zip(lookups, rows, strict=True)])
    return macro_f1(gold, predicted, len(names))


def _cuts(margin_N: F64) -> tuple[F64, I64]:
    """Every threshold that tells some notes apart, and how many margins lie above it. Equal margins stay together."""
    values, counts = np.unique(margin_N, return_counts=True)
    between = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([[-np.inf], between, [np.inf]])
    return thresholds, len(margin_N) - np.concatenate([[0], np.cumsum(counts)])


def _best_threshold(positive_N: Bools, margin_N: F64) -> float:
    """The cut with the best macro F1; of equally good ones, the middle."""
    thresholds, n_called = _cuts(margin_N)
    n_right = positive_N.sum() - np.searchsorted(np.sort(margin_N[positive_N]), thresholds, "right")
    n_positive, n = positive_N.sum(), len(positive_N)
    n_negative_right = (n - n_called) - (n_positive - n_right)
    f1 = 2 * n_right / np.maximum(n_called + n_positive, 1)
    f1 = f1 + 2 * n_negative_right / np.maximum((n - n_called) + (n - n_positive), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(thresholds[best[len(best) // 2]])


def _binary_f1(positive_N: Bools, called_N: Bools) -> float:
    return macro_f1((~positive_N).astype(np.int64), (~called_N).astype(np.int64), 2)


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are defined; None of nothing."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
