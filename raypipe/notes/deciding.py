"""From annotators' spans to the words that decide a task.

The spans are those of `data.columns.spans`, or else the entities of the BIO tags in `data.columns.tags`. A task names
the types that decide it (`spans:` in the tasks file). They serve to judge relevance (evaluation/agreement.py), like
the planted words of the generated corpus. No method sees them but `mslm.terms: ner`, which hides the tagged entities.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.notes.annotated_spans import Span, of_tags, parsed
from raypipe.notes.cleaning import hashed
from raypipe.notes.files import iter_notes
from raypipe.notes.tasks import Task
from raypipe.settings.config import Data
from raypipe.settings.yamlfile import did_you_mean


def is_annotated(data: Data, tasks: Sequence[Task]) -> bool:
    """Whether the notes mark the words that decide.

    Without `spans:` in a task, tags are for masking alone, and spans may be for placeholders alone.
    """
    columns, are_named = data.columns, any(task.spans for task in tasks)
    if columns.spans is None:
        return columns.tags is not None and are_named
    return are_named or not data.placeholders


def read_deciding(data: Data, tasks: Sequence[Task]) -> pa.Table:
    """`rows.DECIDING` of all notes. Raises `InputError` if a cell is malformed, or no note has a type of a task."""
    column = "tags" if data.columns.spans is None else "spans"
    out, seen, broken = [], set[str](), []
    for table in iter_notes(data, ["note_id", "text", "error", column]):
        for note in table.filter(table["text"].is_valid()).to_pylist():
            try:
                spans = _spans(note[column], note["text"], column)
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
    problems = _problems(tasks, seen, f"data.columns.{column}")
    if broken:
        format_of_cell = "list of [type, start, end] within the note" if column == "spans" else "BIO tag for each token"
        what = f"{len(broken):,} notes hold no {format_of_cell} (one is, hashed, {hashed(broken[0])})"
        problems.append(Problem(f"data.columns.{column}", what))
    if problems:
        raise InputError(problems)
    return rows.table(out, rows.DECIDING)


def _spans(cell: str | None, text: str, column: str) -> list[Span]:
    if cell is None:
        return []
    return parsed(cell, len(text)) if column == "spans" else of_tags(cell.split(), text)


def _problems(tasks: Sequence[Task], seen: set[str], field: str) -> list[Problem]:
    if not any(task.spans for task in tasks):
        return [Problem(field, "is set, but no task says by `spans` which types decide it")]
    unknown = [(task.id, kind) for task in tasks for kind in task.spans if kind not in seen]
    what = "task {!r}: no note has a span of type {!r}{}"
    return [Problem("data.tasks", what.format(id, kind, did_you_mean(kind, seen))) for id, kind in unknown]
