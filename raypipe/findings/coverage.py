"""Prediction sets of the arms of a run, or of a comparison's runs: evaluation/conformal.py on what the steps left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from raypipe import rows
from raypipe.evaluation.conformal import Sets, averaged, conformal
from raypipe.evaluation.metrics import measurable, of_tasks
from raypipe.findings.predictions import tfidf
from raypipe.runs.making import CALIBRATION
from raypipe.runs.names import TFIDF
from raypipe.runs.run import Run


def prediction_sets(cells: Sequence[Run]) -> Iterator[tuple[str, Sets]]:
    """Of the arms all of whose students were calibrated, and of TF-IDF; means over the students of all cells.

    Every student is calibrated on its own: its threshold says nothing about another's scores.
    """
    if cells[0].settings.evaluation.conformal is None:
        return
    for arm in (*cells[0].settings.arms, TFIDF):
        of_students = [sets for cell in cells for sets in _sets_of_students(cell, arm)]
        if of_students and None not in of_students:
            yield arm, averaged([sets for sets in of_students if sets is not None])


def _sets_of_students(cell: Run, arm: str) -> Iterator[Sets | None]:
    """Of each student of an arm; None for one that is not there."""
    settings, split = cell.settings.evaluation.conformal, cell.settings.evaluation.split
    if settings is None:
        return
    tasks = measurable(cell.corpus.tasks, cell.corpus.labels_of(split))
    pairs: list[tuple[pa.Table | None, pa.Table | None]] = []
    if arm == TFIDF:
        pairs = [(tfidf(cell, CALIBRATION), tfidf(cell, split))]
    else:
        students = cell.students(arm)
        pairs = [(_table(cell.of(arm), "calibrate", s), _table(cell.of(arm), "evaluate", s)) for s in students]
    for dev, evaluated in pairs:
        if dev is None or evaluated is None:
            yield None
        else:
            args = (tasks, settings.alpha, settings.score, cell.settings.seed)
            yield conformal(of_tasks(dev, tasks), of_tasks(evaluated, tasks), *args)


def _table(run: Run, name: str, student: str) -> pa.Table | None:
    step = run.step(f"{name}/{student}")
    return rows.read(step.data) if step.done else None
