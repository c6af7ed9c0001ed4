"""Predictions of a run's arms and baselines, pooled over the runs of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.evaluation import baselines, metrics
from raypipe.findings.material import masks_of
from raypipe.hashing import stable_hash
from raypipe.notes.tasks import Task
from raypipe.runs import probing
from raypipe.runs.names import EMBEDDINGS, SCORER, TFIDF
from raypipe.runs.run import Run

UNLABELLED_FOR_IDF = 5000


@dataclass
class Pooled:
    """rows.PREDICTIONS of the runs of each arm, and the seed that each run belongs to."""

    tasks: Sequence[Task] | None = None  # those that count; None: all
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    seeds: dict[str, list[int]] = field(default_factory=dict)

    def add(self, arm: str, seed: int, *tables: pa.Table) -> None:
        """Runs of one seed."""
        if self.tasks is not None:
            tables = tuple(metrics.of_tasks(table, self.tasks) for table in tables)
        self.tables.setdefault(arm, []).extend(tables)
        self.seeds.setdefault(arm, []).extend([seed] * len(tables))


def predictions(cells: Sequence[Run], tasks: Sequence[Task], unlabelled: Sequence[Run] = ()) -> Pooled:
    """Of the arms whose repeats are all there in every cell, of a scorer that is no student, and of the baselines.

    `unlabelled`: the run of each cell's seed that read the unlabelled notes; none: the cells themselves.
    """
    pooled = of_arms(cells, tasks)
    scorers = [] if cells[0].settings.scorer_is_a_student else [cell.step(f"evaluate/{SCORER}") for cell in cells]
    if all(step.done for step in scorers):
        for place, step in enumerate(scorers):
            pooled.add(SCORER, place, rows.read(step.data))
    for place, cell in enumerate(cells):
        pooled.add(TFIDF, place, tfidf(cell, cell.settings.evaluation.split, (unlabelled or cells)[place]))
    embeddings = [table for cell in cells if (table := probing.backbone_answers(cell)) is not None]
    for place, table in enumerate(embeddings if len(embeddings) == len(cells) else ()):
        pooled.add(EMBEDDINGS, place, table)
    return pooled


def of_arms(cells: Sequence[Run], tasks: Sequence[Task]) -> Pooled:
    """Of the arms alone whose repeats are all there in every cell."""
    pooled = Pooled(tasks)
    for arm in cells[0].settings.arms:
        steps = [[cell.of(arm).step(f"evaluate/{student}") for student in cell.students(arm)] for cell in cells]
        if all(step.done for of_cell in steps for step in of_cell):  # other seeds would be another comparison
            for place, of_cell in enumerate(steps):
                pooled.add(arm, place, *(rows.read(step.data) for step in of_cell))
    return pooled


def tfidf(run: Run, split: str, unlabelled: Run | None = None) -> pa.Table:
    """TF-IDF + logistic regression on the same labels; IDF also from unlabelled notes, as the arms see them."""
    masked, texts = masks_of(unlabelled or run), []
    if masked.done:
        dataset = rows.dataset(masked.data)
        ids = dataset.to_table(columns=["note_id"], filter=pc.field("text").is_valid())["note_id"].to_pylist()
        some = pa.array(nsmallest(UNLABELLED_FOR_IDF, ids, key=stable_hash), pa.string())
        texts = dataset.to_table(columns=["text"], filter=pc.field("note_id").isin(some))["text"].to_pylist()
    notes, labels = rows.read(run.corpus.labelled_path), run.corpus.labels
    return baselines.tfidf_logistic(notes, labels, run.corpus.tasks, texts, split)
