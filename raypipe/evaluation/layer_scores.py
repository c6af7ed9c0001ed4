"""Probes of several students, layer by layer: scores with intervals, selectivity, and the chosen layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raypipe.evaluation import metrics
from raypipe.evaluation.heads import answers_of, choose_layer, inner_scores
from raypipe.evaluation.uncertainty import Estimate, compare_arms
from raypipe.notes.tasks import Task


@dataclass(frozen=True)
class Selectivity:
    """Of one layer, over the notes and tasks that have a control label. Shares."""

    task: float  # macro F1 on the tasks
    control: float  # macro F1 on the control tasks
    notes: int  # pairs of a note and a task
    tasks: int

    @property
    def value(self) -> float:
        """The score beyond what can be learned by heart."""
        return self.task - self.control


@dataclass(frozen=True)
class LayerScore:
    """One student, layer and pooling."""

    student: str
    layer: int
    pooling: str
    macro_f1: Estimate  # on the evaluation split, mean over tasks
    inner_f1: float | None  # within the training notes, mean over tasks
    selectivity: Selectivity | None


@dataclass(frozen=True)
class BestLayer:
    """The layer and pooling of a student with the best cross-validation within the training notes."""

    score: LayerScore
    difference: Estimate | None  # from the backbone at its own best; None: this is the backbone


def layer_scores(
    probed: Mapping[str, pa.Table], tasks: Sequence[Task], n_bootstrap: int, seed: int
) -> tuple[LayerScore, ...]:
    """Every layer and pooling that all students have (rows.PROBED by name), sorted."""
    inner = {student: inner_scores(table) for student, table in probed.items()}
    out = []
    for place in sorted(set.intersection(*map(set, inner.values()))):
        answers = {student: [answers_of(table, *place)] for student, table in probed.items()}
        estimates = compare_arms(answers, tasks, n_bootstrap=n_bootstrap, seed=seed).arms
        for student, table in probed.items():
            selective = selectivity(table, *place, tasks)
            out.append(LayerScore(student, *place, estimates[student], inner[student][place], selective))
    return tuple(out)


def best_layers(
    probed: Mapping[str, pa.Table],
    scores: Sequence[LayerScore],
    tasks: Sequence[Task],
    backbone: str,
    n_bootstrap: int,
    seed: int,
) -> tuple[BestLayer, ...]:
    """One result per student whose training notes allow a choice of layer. Evaluation notes are not used for it."""
    chosen = {student: best for student, table in probed.items() if (best := choose_layer(table)) is not None}
    if not chosen:
        return ()
    answers = {student: [answers_of(probed[student], *best)] for student, best in chosen.items()}
    pairs = [(student, backbone) for student in chosen if student != backbone] if backbone in chosen else []
    compared = compare_arms(answers, tasks, pairs, n_bootstrap=n_bootstrap, seed=seed)
    difference_of = {difference.arm: difference.estimate for difference in compared.differences}
    score_of = {(score.student, score.layer, score.pooling): score for score in scores}
    return tuple(
        BestLayer(score_of[student, *best], difference_of.get(student))
        for student, best in chosen.items()
        if (student, *best) in score_of
    )


def selectivity(probed: pa.Table, layer: int, pooling: str, tasks: Sequence[Task]) -> Selectivity | None:
    """None where no note has a control label."""
    control = answers_of(probed, layer, pooling, is_control=True)
    if not len(control):
        return None
    own = answers_of(probed, layer, pooling)
    pairs = set(zip(control["task_id"].to_pylist(), control["note_id"].to_pylist(), strict=True))
    names = zip(own["task_id"].to_pylist(), own["note_id"].to_pylist(), strict=True)
    own = own.filter(pa.array([pair in pairs for pair in names], pa.bool_()))
    on_task, on_control = (metrics.evaluate(table, tasks) for table in (own, control))
    return Selectivity(on_task.macro_f1, on_control.macro_f1, len(control), len(on_control.tasks))
