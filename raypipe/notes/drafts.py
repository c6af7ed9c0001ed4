"""Drafts of tasks from the labels of an unknown table, for `raypipe init`; a user reads and mends them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raypipe.settings.sections.values import NAME

POSITIVE = frozenset(
    ["1", "yes", "sì", "si", "s", "y", "true", "t", "positive", "positivo", "pos", "present", "presente", "x", "+"]
)
_CODE = re.compile(r"[-+]?\d+(\.0)?|.")  # says nothing to a model: a number or one character


@dataclass(frozen=True)
class Draft:
    """One task as it will be written."""

    id: str
    column: str  # of a wide table; else what the table calls the task
    options: tuple[str, ...]
    n_rows: int

    def entry(self, answers: tuple[str, str]) -> str:
        """Its entry in the tasks file."""
        question = self.column.strip().rstrip("?: ") + "?"
        lines = [
            f"  - id: {_quoted(self.id)}",
            *(["    kind: multiclass"] if len(self.options) != 2 else []),
            f"    question: {_quoted(question)}",
            f"    options: [{', '.join(map(_quoted, self.options))}] # as the table writes them",
        ]
        if len(self.options) == 2 and all(map(_CODE.fullmatch, self.options)) and _is_positive(self.options[0]):
            say = ", ".join(f"{_quoted(o)}: {_quoted(a)}" for o, a in zip(self.options, answers, strict=True))
            lines.append(f"    verbalizers: {{{say}}} # as the model says them")
        elif any(map(_CODE.fullmatch, self.options)):
            lines.append("    # what do these codes mean? Write `verbalizers: {code: what the model says, ...}`")
        return "\n".join(lines)


def draft(name: str, options: Iterable[str], n_rows: int, used: Sequence[str] = ()) -> Draft:
    """A task for the labels of a column; `used`: ids of the tasks before it."""
    first = slug = _slug(name)
    number = 1
    while slug in used:
        number += 1
        slug = f"{first}_{number}"
    ordered = sorted(options)
    if len(ordered) == 2:
        ordered.reverse()
        ordered.sort(key=lambda option: not _is_positive(option))
    return Draft(slug, name, tuple(ordered), n_rows)


def _is_positive(option: str) -> bool:
    return option.strip().casefold().removesuffix(".0") in POSITIVE


def of_long_table(labels: pa.Table) -> list[Draft]:
    """The tasks of a table with the columns task and label: whatever their names are."""
    counts = labels.group_by(labels.column_names).aggregate([([], "count_all")]).to_pylist()
    task, label = labels.column_names
    per_task: dict[str, dict[str, int]] = {}
    for row in counts:
        if row[task] and row[label]:
            per_task.setdefault(row[task], {})[row[label]] = row["count_all"]
    return [Draft(id, id, draft(id, of, 0).options, sum(of.values())) for id, of in sorted(per_task.items())]


def is_id(name: str) -> bool:
    """Can a task be called so? Its id becomes the name of a folder."""
    return re.fullmatch(NAME, name) is not None


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:50].strip("_") or "task"


def _quoted(text: str) -> str:
    """As YAML: JSON is YAML."""
    return json.dumps(text, ensure_ascii=False)
