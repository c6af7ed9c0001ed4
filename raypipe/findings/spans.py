"""What an arm hides, or a task's most relevant words, as spans over the notes' text for an annotation tool.

    raypipe export --config RUN --what spans --to label-studio --arm ARM --out FILE.json

A span's type is its task, so that spans which annotators corrected can say which words decide a task (`spans:` in the
tasks file, `data.columns.spans`). The file holds the notes' text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.findings import attributions
from raypipe.notes import annotation_tools
from raypipe.notes.annotated_spans import Span
from raypipe.notes.annotation_tools import Annotated, Tool
from raypipe.records import new_file
from raypipe.words import F32

VARIANT = "RUN/variants/ARM"


@dataclass(frozen=True)
class Hidden:
    """The spans that an arm hides; of plans that are drawn anew for each epoch, the first."""

    arm: str
    task: str | None = None  # None: of every task that the note has a plan for

    columns = ("note_id", "text", "plans")

    def __str__(self) -> str:
        return f"hidden by {self.arm}"

    def spans(self, note: dict[str, Any]) -> list[Span] | None:
        """Of a row of rows.MASKED; None if the arm has no plan for it."""
        plans = [p for p in note["plans"] or [] if p["arm"] == self.arm and p["draw"] == 0]
        plans = [p for p in plans if self.task is None or p["task_id"] in (self.task, None)]
        spans = [(p["task_id"] or self.arm, s, e) for p in plans for s, e in zip(p["start"], p["end"], strict=True)]
        return spans if plans else None


@dataclass(frozen=True)
class Relevant:
    """The words with the highest relevance, at the lowest layer stored."""

    percent: float  # of the note's words, at least one
    task: str | None = None  # None: of every task whose question the note was asked

    columns = ("note_id", "text", "task_id", "word_start", "word_end", "layers", "relevance")

    def __str__(self) -> str:
        return f"top {self.percent:g} % relevant"

    def spans(self, note: dict[str, Any]) -> list[Span] | None:
        """Of a row of rows.MASKED; None if it has no relevance for the task."""
        words_W2, relevance_QW = rows.words_and_relevance(note)
        if relevance_QW is None:
            return None
        tasks = [(q, task) for q, task in enumerate(note["task_id"]) if self.task in (None, task)]
        words = words_W2.tolist()
        return [(task, *words[w]) for q, task in tasks for w in self._top(relevance_QW[q])] if tasks else None

    def _top(self, relevance_W: F32) -> list[int]:
        """Numbers of the words, in the order of the note. Words that the scorer could not see (0) are none of them."""
        n = max(1, round(len(relevance_W) * self.percent / 100))
        highest = np.argsort(-relevance_W, kind="stable")[:n]
        return sorted(int(w) for w in highest if relevance_W[w] > 0)


def export(path: Path, out: Path, tool: Tool, which: Hidden | Relevant) -> tuple[int, int]:
    """Write the spans of a run's notes for a tool; returns how many notes and spans.

    `path`: the folder of a run or of its step `mask`. Raises `InputError` if no note has such spans.
    """
    step = attributions.step_of(path, needs_text=True)
    with new_file(out) as fresh:
        n_notes, n_spans = annotation_tools.write(_notes(step, which), tool, fresh, str(which))
        if not n_notes:
            what = f"no note has words {which} (an arm with an attribution of its own: --config {VARIANT})"
            raise InputError([Problem(str(step), what)])
    return n_notes, n_spans


def _notes(step: Path, which: Hidden | Relevant) -> Iterator[Annotated]:
    for batch in attributions.batches(step, list(which.columns)):
        for note in batch.filter(batch["text"].is_valid()).to_pylist():
            spans = which.spans(note)
            if spans is not None:
                yield Annotated(note["note_id"], note["text"], spans)
