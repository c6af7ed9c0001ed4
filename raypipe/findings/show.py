"""What each arm hides in one note, side by side. Prints the note's text, to the terminal of whoever asked for it.

    raypipe show --config RUN --note ID [--task T]

A column per arm, a row per word that some arm hides: # hidden, + a part of it hidden, . visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.dataset as pds

from raypipe import rows
from raypipe.errors import Code, InputError
from raypipe.guard.terminal import printable
from raypipe.runs.integrity import MANIFEST, read_json

Plan = dict[str, Any]
WHY = {
    Code.HELD_OUT: "it is a dev or test note, or too close to one, and no arm learns from it",
    Code.NOT_SAMPLED: "it is beyond data.max_unlabelled, or set aside for pretraining",
}


def masks_of(run: Path) -> list[Path]:
    """The finished steps of a run that hide words: its own, and one for each arm with an attribution of its own."""
    masks = [run / "mask", *sorted(run.glob("variants/*/mask"))]
    return [folder for folder in masks if (folder / MANIFEST).exists()]


def show_note(masked: Sequence[Path], note_id: str, task_id: str | None = None) -> str:
    """A note in finished steps that hide words, for its first task if none is named.

    Raises `InputError` if it is not there. Relevance is that of the first step; of the others, only what it leads to is
    shown.
    """
    versions = [
        note
        for folder in masked
        for note in rows.dataset(folder / "data").to_table(filter=pds.field("note_id") == note_id).to_pylist()
    ]
    if not versions:
        raise InputError(f"no note {note_id} in {', '.join(map(str, masked))}; ids are those of data.columns.note_id")
    notes = [note for note in versions if note["error"] is None]
    if not notes:
        code = versions[0]["error"]
        raise InputError(f"nothing is masked in note {note_id}: {WHY.get(code, f'{code} (docs/cluster.md)')}")
    tasks = list(dict.fromkeys(task for note in notes for task in note["task_id"] or []))
    if task_id is not None and task_id not in tasks:
        raise InputError(f"note {note_id} was asked {', '.join(tasks) or 'nothing'}, not {task_id}")
    layer = read_json(masked[0] / MANIFEST).get("layer")
    return "\n".join(_lines(notes, task_id or next(iter(tasks), None), layer))


def _lines(notes: Sequence[dict[str, Any]], task_id: str | None, layer: int | None) -> list[str]:
    """`layer`: the one that masking read, where several are stored."""
    note = notes[0]
    words_W2, relevance_QW = rows.words_and_relevance(note, layer)
    relevance: list[float] = []
    if relevance_QW is not None and task_id in note["task_id"]:
        relevance = relevance_QW[note["task_id"].index(task_id)].tolist()
    plans = [p for n in notes for p in n["plans"] if p["task_id"] in (task_id, None) and p["draw"] == 0]
    spans = words_W2.tolist()
    marks = [[_mark(plan, start, end) for plan in plans] for start, end in spans]
    shown = [number for number, row in enumerate(marks) if set(row) != {"."}]
    width = max([9, *(spans[number][1] - spans[number][0] for number in shown)])
    legend = [f"{_letter(i)} {plan['arm']}: {_amount(plan)}" for i, plan in enumerate(plans)]
    head = f"{'':{width}} {'relevance' if relevance else '':>9}  {' '.join(map(_letter, range(len(plans))))}"
    title = f"note {note['note_id']}" + (f", task {task_id}" if task_id else "")
    text = printable(note["text"])  # a note may hold control sequences of terminals
    lines = [title, "", text, "", *legend, "", head]
    for before, number in pairwise([-1, *shown]):
        value = f"{relevance[number]:9.3f}" if relevance else " " * 9
        skipped = [f"{'':{width}} {'':9}  ..."] if number > before + 1 else []
        start, end = spans[number]
        lines += [*skipped, f"{text[start:end]:{width}} {value}  {' '.join(marks[number])}"]
    return lines


def _mark(plan: Plan, start: int, end: int) -> str:
    """Whether the plan hides this word, or a part of it."""
    hidden = sum(max(0, min(end, b) - max(start, a)) for a, b in zip(plan["start"], plan["end"], strict=True))
    return "." if not hidden or not plan["n_masked"] else "#" if hidden == end - start else "+"


def _amount(plan: Plan) -> str:
    masked, eligible = plan["n_masked"], plan["n_eligible"]
    return f"{masked} of {eligible} eligible words, {masked / max(1, eligible):.1%}"


def _letter(number: int) -> str:
    """Name of a column: A..Z, a..z, then again."""
    letters: Sequence[str] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return letters[number % len(letters)]
