"""Notes with the relevance of one task and what each arm hides of them: rows of `mask` -> page/heatmap.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc

from raypipe import rows
from raypipe.findings import known_words
from raypipe.findings.page.heatmap import HeatMap, Panel, Span
from raypipe.notes.tasks import Task
from raypipe.runs.run import Run
from raypipe.words import F32, I32


def heat_maps(run: Run) -> Iterator[HeatMap]:
    """The first notes, as many as the config asks for; those whose deciding words are known, if any are."""
    remaining, masks = run.settings.evaluation.heat_maps, run.step("mask")
    if not remaining or not masks.is_readable:
        return
    deciding = run.corpus.deciding_words()
    task_of = {task.id: task for task in run.corpus.tasks}
    layer = known_words.layer_of(run)
    first = rows.read(sorted(masks.data.glob("*.parquet"))[0])
    for note in first.sort_by("note_id").to_pylist():
        shown = [t for t in note["task_id"] or [] if not deciding or (note["note_id"], t) in deciding]
        if remaining and shown and note["error"] is None:
            remaining -= 1
            spans = deciding.get((note["note_id"], shown[0]), [])
            label = _label(run, note["note_id"], shown[0])
            yield heat_map(note, task_of[shown[0]], spans, layer, label)


def heat_map(
    note: dict[str, Any], task: Task, deciding: list[tuple[int, int]], layer: int | None, label: str | None
) -> HeatMap:
    """A row of rows.MASKED for one task. `label`: the true one, if it is known."""
    words_W2, relevance_QW = rows.words_and_relevance(note, layer)
    words, q = [(int(start), int(end)) for start, end in words_W2], note["task_id"].index(task.id)
    relevance = np.zeros(len(words)) if relevance_QW is None else relevance_QW[q]
    panels = []
    for plan in note["plans"]:
        if plan["task_id"] in (task.id, None) and plan["draw"] == 0:
            hidden = list(zip(plan["start"], plan["end"], strict=True))
            caption = f"{plan['n_masked']} of {plan['n_eligible']} eligible words"
            panels.append(Panel(plan["arm"], hidden, relevance.tolist(), caption))
    true = f"true label: {_named(task, label)}" if label is not None else "true label: unknown (an unlabelled note)"
    said = f"the scorer answers {_named(task, note['predicted'][q])}, {note['margin'][q]:.2f} nats before the next"
    read, cut = None, ""
    if note["n_cut_tokens"] and relevance_QW is not None:
        read = _read(words_W2, relevance_QW)
        total = note["n_tokens"] + note["n_cut_tokens"]
        cut = f"; the model read {note['n_tokens']} of the note's {total} tokens"
    return HeatMap(
        f"Note {note['note_id']}: {task.question}", note["text"], words, panels, deciding, f"{true}; {said}{cut}", read
    )


def _read(words_W2: I32, relevance_QW: F32) -> Span | None:
    """From the first to the last word with any relevance: words that did not fit the context have none."""
    seen = np.flatnonzero(relevance_QW.any(axis=0))
    return (int(words_W2[seen[0], 0]), int(words_W2[seen[-1], 1])) if len(seen) else None


def _label(run: Run, note_id: str, task_id: str) -> str | None:
    labels = run.corpus.labels
    of_note = labels.filter(pc.and_(pc.equal(labels["note_id"], note_id), pc.equal(labels["task_id"], task_id)))
    return str(of_note["label"][0]) if len(of_note) else None


def _named(task: Task, label: str) -> str:
    """As the model says it, and as the labels table writes it, where these differ."""
    answer = dict(zip(task.options, task.answers, strict=True)).get(label, label)
    return f"\u201c{answer}\u201d" if answer == label else f"\u201c{answer}\u201d (label {label})"
