"""Probes: what a small classifier can read off frozen states, layer by layer (docs/method.md, section 10).

Per task and layer: states standardised by the training notes, an L2 logistic regression whose penalty is chosen by
cross-validation within them (macro F1 of the left-out answers; no group straddles two folds), then answers for the
evaluation notes. `mlp256` is the head of DecSelfMask's code, one hidden layer of 256 (there AdamW and dropout .1; here
scikit-learn's Adam without dropout).

A probe may also learn by heart: the control task gives every note a random label that depends on its first content
word alone (evaluation/control.py). Selectivity is the score on the task less that on the control, over the evaluation
notes whose word occurs in training notes (Hewitt & Liang 2019, 1909.03368, section 2, adapted to documents).

scikit-learn takes a second to import, and every worker imports this file: only who fits a classifier waits for it.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.words import F32, F64

LEAST_PROBABILITY = 1e-9  # probability of an option that no training note has
MAX_STEPS = 500  # of the solver
# (task_id, note_id) -> label of the control task
Control = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class PooledStates:
    """States of one layer and one pooling, for all notes and tasks."""

    layer: int
    pooling: str
    states_XD: F32
    row_of: Mapping[tuple[str, str], int]  # (task_id, note_id) -> its row

    @classmethod
    def read(cls, states: pa.Table, layer: int, pooling: str) -> PooledStates:
        """From a `rows.states` table with at least the column of this layer and pooling."""
        row_of: dict[tuple[str, str], int] = {}
        parts, n_rows = [], 0
        states = states.filter(pc.greater(pc.list_value_length(states["task_id"]), 0))  # less those without room
        for batch in states.select(["note_id", "task_id", f"{pooling}_{layer}"]).to_batches():
            ids, tasks_of = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            n_vectors = sum(map(len, tasks_of)) if pooling == "last" else len(ids)
            if not n_vectors:
                continue
            parts.append(batch.column(2).flatten().to_numpy().reshape(n_vectors, -1))
            for note_id, task_ids in zip(ids, tasks_of, strict=True):
                row_of |= {(t, note_id): n_rows + (q if pooling == "last" else 0) for q, t in enumerate(task_ids)}
                n_rows += len(task_ids) if pooling == "last" else 1
        return cls(layer, pooling, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32), row_of)


def fit_probe(
    pooled: PooledStates,
    labels: pa.Table,
    group_of: Mapping[str, str | None],
    tasks: Sequence[Task],
    split: str,
    settings: config.Probe,
    control: Control | None = None,
    seed: int = 0,
) -> pa.Table:
    """`rows.PROBED` of one layer and pooling: every label of `split`, and every control label there.

    `labels`: rows.LABELS, learned from where the split is "train". `group_of`: note id -> group, null if it has
    none. A labelled note without states has no answer, which counts as wrong. A task without training labels is left
    out.
    """
    labelled = labels_by_task(labels)
    out: list[dict[str, Any]] = []
    for task in tasks:
        train, evaluated = labelled[task.id, "train"], labelled[task.id, split]
        if not train or not evaluated:
            continue
        train = [row for row in train if (task.id, row["note_id"]) in pooled.row_of]
        columns = {"layer": pooled.layer, "pooling": pooled.pooling}
        head = _Head(settings, task, seed)
        inner = head.choose_penalty(_states(pooled, task, train), train, group_of)
        columns |= {"c": head.c, "inner_f1": inner}
        out += _answers(head, pooled, task, train, evaluated, group_of, {**columns, "is_control": False})
        if control is not None:  # the same head with the same penalty, on other labels
            train, evaluated = (_with_control(part, control) for part in (train, evaluated))
            if all(len({row["label"] for row in part}) > 1 for part in (train, evaluated)):
                out += _answers(head, pooled, task, train, evaluated, group_of, {**columns, "is_control": True})
    return rows.table(out, rows.PROBED)


def labels_by_task(labels: pa.Table) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    """The rows of rows.LABELS by task and split; an empty list where there are none."""
    out = defaultdict(list)
    for row in labels.to_pylist():
        out[row["task_id"], row["split"]].append(row)
    return out


def log_probabilities(model: Any, features_NX: Any, options: Sequence[str]) -> F64:
    """Log-probability of every option, [N, C], from a fitted classifier of scikit-learn."""
    probability_NC = np.full((features_NX.shape[0], len(options)), LEAST_PROBABILITY)
    probability_NC[:, [options.index(label) for label in model.classes_]] = model.predict_proba(features_NX)
    return np.asarray(np.log(np.maximum(probability_NC, LEAST_PROBABILITY)))


def inner_scores(probed: pa.Table) -> dict[tuple[int, str], float | None]:
    """Macro F1 of cross-validation within the training notes by layer and pooling, mean over tasks; None without any.

    Evaluation notes are not used.
    """
    per_task = probed.group_by(["layer", "pooling", "task_id"]).aggregate([("inner_f1", "max")])
    means = per_task.group_by(["layer", "pooling"]).aggregate([("inner_f1_max", "mean")]).to_pylist()
    return {(row["layer"], row["pooling"]): row["inner_f1_max_mean"] for row in means}


def choose_layer(probed: pa.Table) -> tuple[int, str] | None:
    """Layer and pooling with the best `inner_scores`, of equals the lowest layer; None without any."""
    ranked = [(-score, *place) for place, score in inner_scores(probed).items() if score]
    return min(ranked)[1:] if ranked else None


def answers_of(probed: pa.Table, layer: int, pooling: str, is_control: bool = False) -> pa.Table:
    """The `rows.PREDICTIONS` of one layer and pooling."""
    columns = {"layer": layer, "pooling": pooling, "is_control": is_control}
    for name, value in columns.items():
        probed = probed.filter(pc.equal(probed[name], value))
    return probed.select(rows.PREDICTIONS.names)


class _Head:
    """A classifier of the states of one task."""

    def __init__(self, settings: config.Probe, task: Task, seed: int) -> None:
        self.settings, self.task, self.seed = settings, task, seed
        self.grid = sorted(settings.c) if settings.head == "logistic" else [None]
        self.c: float | None = self.grid[len(self.grid) // 2]  # where there are too few labels to choose

    def choose_penalty(
        self, states_ND: F64, train: Sequence[Mapping[str, Any]], group_of: Mapping[str, str | None]
    ) -> float | None:
        """Set the penalty by cross-validation; its macro F1, or None where a label has fewer than two groups."""
        gold_N = np.asarray([row["label"] for row in train])
        groups_N = np.asarray([group_of.get(row["note_id"]) or f"\0{row['note_id']}" for row in train])
        groups_of_label = [len(set(groups_N[gold_N == label])) for label in set(gold_N)]
        n_folds = min([self.settings.folds, *groups_of_label])
        if n_folds < 2 or len(groups_of_label) < 2:
            return None
        from sklearn.metrics import f1_score
        from sklearn.model_selection import StratifiedGroupKFold

        states_ND, _ = _standardised(states_ND, states_ND[:0], rotate=self.settings.head == "logistic")
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=self.seed)
        answer_CN = np.empty((len(self.grid), len(train)), dtype=gold_N.dtype)
        for learn, left_out in folds.split(states_ND, gold_N, groups_N):
            for c, model in enumerate(self._fits(states_ND[learn], gold_N[learn], self.grid)):
                answer_CN[c, left_out] = model.predict(states_ND[left_out])
        f1_C = [f1_score(gold_N, answer_N, average="macro", zero_division=0) for answer_N in answer_CN]
        best = int(np.argmax(f1_C))  # of equals the strongest penalty
        self.c = self.grid[best]
        return float(f1_C[best])

    def log_probabilities(self, learn_ND: F64, gold: Sequence[str], evaluated_ND: F64) -> F64:
        """Log-probability of every option for the evaluated notes, [N, C]."""
        if not len(evaluated_ND):
            return np.empty((0, len(self.task.options)))
        learn_ND, evaluated_ND = _standardised(learn_ND, evaluated_ND, rotate=self.settings.head == "logistic")
        model = next(self._fits(learn_ND, np.asarray(gold), [self.c]))
        return log_probabilities(model, evaluated_ND, self.task.options)

    def _fits(self, states_ND: F64, gold_N: npt.NDArray[np.str_], grid: Sequence[float | None]) -> Iterator[Any]:
        """A fitted classifier for each penalty, strongest first. The next one overwrites it."""
        from sklearn.dummy import DummyClassifier
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier

        # the last token at the embeddings, for example, holds nothing of the note
        if len(set(gold_N)) < 2 or not states_ND.std(axis=0).any():
            constant = DummyClassifier(strategy="prior").fit(states_ND, gold_N)
            yield from (constant for _ in grid)
            return
        with warnings.catch_warnings():  # a step limit that is reached shows in the score
            warnings.simplefilter("ignore", ConvergenceWarning)
            if self.settings.head == "mlp256":
                model = MLPClassifier((256,), batch_size=min(64, len(gold_N)), max_iter=20, random_state=self.seed)
                yield model.fit(states_ND, gold_N)
                return
            model = LogisticRegression(class_weight="balanced", max_iter=MAX_STEPS, warm_start=True)
            for c in grid:
                yield model.set_params(C=c).fit(states_ND, gold_N)


def _standardised(learn_ND: F64, evaluated_ND: F64, rotate: bool) -> tuple[F64, F64]:
    """Mean 0 and deviation 1 of every dimension over the notes to learn from, for both.

    `rotate`: with fewer notes than dimensions, use the coordinates of their span. This only makes an L2-penalised
    linear classifier faster: its weights lie in that span, and a rotation does not change their norm.
    """
    mean_D, deviation_D = learn_ND.mean(0), learn_ND.std(0)
    scale_D = np.where(deviation_D > 1e-12, deviation_D, 1.0)
    learn_ND, evaluated_ND = (learn_ND - mean_D) / scale_D, (evaluated_ND - mean_D) / scale_D
    if rotate and learn_ND.shape[0] < learn_ND.shape[1]:
        basis_XD = np.linalg.svd(learn_ND, full_matrices=False)[2]
        learn_ND, evaluated_ND = learn_ND @ basis_XD.T, evaluated_ND @ basis_XD.T
    return learn_ND, evaluated_ND


def _states(pooled: PooledStates, task: Task, labelled: Iterable[Mapping[str, Any]]) -> F64:
    return pooled.states_XD[[pooled.row_of[task.id, row["note_id"]] for row in labelled]].astype(np.float64)


def _with_control(labelled: Iterable[dict[str, Any]], control: Control) -> list[dict[str, Any]]:
    """The notes that have a control label, which replaces their own."""
    keys = ((row, (row["task_id"], row["note_id"])) for row in labelled)
    return [{**row, "label": control[key]} for row, key in keys if key in control]


def _answers(
    head: _Head,
    pooled: PooledStates,
    task: Task,
    train: Sequence[Mapping[str, Any]],
    evaluated: Sequence[Mapping[str, Any]],
    group_of: Mapping[str, str | None],
    columns: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Rows of rows.PROBED for the evaluated notes."""
    answerable = [row for row in evaluated if train and (task.id, row["note_id"]) in pooled.row_of]
    states = _states(pooled, task, train), _states(pooled, task, answerable)
    scores_NC = head.log_probabilities(states[0], [row["label"] for row in train], states[1])
    scores_of = {row["note_id"]: scores_C for row, scores_C in zip(answerable, scores_NC, strict=True)}
    for row in evaluated:
        scores_C = scores_of.get(row["note_id"])
        answer = None if scores_C is None else {"predicted": task.options[int(scores_C.argmax())], "scores": scores_C}
        yield {**row, **columns, "group_id": group_of.get(row["note_id"]), **(answer or {})}
