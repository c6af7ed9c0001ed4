"""Annotators' spans -> the words that are known to decide a task.

A task names the types of spans that decide it (`spans:` in the tasks file). Masking and training never see them: they
judge relevance (evaluation/agreement.py), as the generated corpus's planted words do.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raypipe import rows
from raypipe.config import Data
from raypipe.errors import InputError, Problem
from raypipe.notes.cleaning import hashed
from raypipe.notes.files import iter_notes
from raypipe.notes.spans import parsed
from raypipe.tasks import Task
from raypipe.yamlfile import did_you_mean

FIELD = "data.columns.spans"


def read_deciding(data: Data, tasks: Sequence[Task]) -> pa.Table:
    """`rows.DECIDING` of all notes. Raises `InputError` if a cell is malformed, or no note has a type of a task."""
    out, seen, broken = [], set[str](), []
    for table in iter_notes(data, ["note_id", "text", "error", "spans"]):
        for note in table.filter(table["text"].is_valid()).to_pylist():
            try:
                spans = parsed(note["spans"], len(note["text"]))
            except (ValueError, RecursionError):
                broken.append(note["note_id"])
                continue
            seen |= {kind for kind, _, _ in spans}
            out += [
                {"note_id": note["note_id"], "task_id": task.id, "start": start, "end": end}
                for task in tasks
                for kind, start, end in spans
                if kind in task.spans
            ]
    problems = _problems(tasks, seen)
    if broken:
        what = f"{len(broken):,} notes hold no list of [type, start, end] within the note (one is, hashed, "
        problems.append(Problem(FIELD, f"{what}{hashed(broken[0])})"))
    if problems:
        raise InputError(problems)
    return rows.table(out, rows.DECIDING)


def _problems(tasks: Sequence[Task], seen: set[str]) -> list[Problem]:
    if not any(task.spans for task in tasks):
        return [Problem(FIELD, "is set, but no task says by `spans` which types decide it")]
    unknown = [(task.id, kind) for task in tasks for kind in task.spans if kind not in seen]
    what = "task {!r}: no note has a span of type {!r}{}"
    return [Problem("data.tasks", what.format(id, kind, did_you_mean(kind, seen))) for id, kind in unknown]
