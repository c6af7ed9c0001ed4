"""Classifiers on stored states: one unit of work is a layer and a pooling, with all tasks."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raypipe import rows
from raypipe.evaluation.control import content_word, control_labels
from raypipe.evaluation.heads import PooledStates, fit_probe
from raypipe.guard.quiet import quiet
from raypipe.notes.tasks import Task
from raypipe.settings import config


@quiet
class Fit:
    """Rows of (layer, pooling) in, their rows.PROBED out."""

    def __init__(
        self,
        states: str,
        notes: str,
        labels: str,
        tasks: Sequence[Task],
        split: str,
        settings: config.Probe,
        seed: int,
    ) -> None:
        self.stored, self.tasks, self.split, self.settings, self.seed = states, tasks, split, settings, seed
        labelled = rows.read(notes, columns=["note_id", "group_id", "text"]).to_pylist()
        self.labels = rows.read(labels)
        self.group_of = {note["note_id"]: note["group_id"] for note in labelled}
        self.control = None
        if settings.control:
            word_of = {note["note_id"]: content_word(note["text"]) for note in labelled}
            self.control = control_labels(self.labels, word_of, tasks, split, seed)

    def __call__(self, table: pa.Table) -> pa.Table:
        out = [rows.PROBED.empty_table()]
        for unit in table.to_pylist():
            column = f"{unit['pooling']}_{unit['layer']}"
            states = rows.read(self.stored, columns=["note_id", "task_id", column])
            pooled = PooledStates.read(states, unit["layer"], unit["pooling"])
            args = (self.labels, self.group_of, self.tasks, self.split, self.settings, self.control, self.seed)
            out.append(fit_probe(pooled, *args))
        return pa.concat_tables(out).combine_chunks()
