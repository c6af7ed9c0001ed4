"""Spans over notes, to annotation tools and back: Label Studio's JSON of tasks, doccano's JSONL.

    Label Studio  a list of {"data": {"text", ...}, "predictions": [{"result": [region, ...]}]}; it comes back with
                  "annotations" in the place of "predictions". A region's "value" is {"start", "end", "labels"}
                  (labelstud.io/guide/task_format)
    doccano       a line {"text", "label": [[start, end, type], ...], ...} per note, sequence labelling; of projects
                  with relations, "entities": [{"start_offset", "end_offset", "label"}] comes back

Both pass on further fields, and `note_id` is one of them. Both count characters as Python does, end exclusive. Versions
of Label Studio before code points were counted moved what follows an emoji: the quoted words of a span then differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.notes.annotated_spans import Span, parsed

Tool = Literal["label-studio", "doccano"]
Record = dict[str, Any]
# What is read back: notes for `data.notes`, their annotations for `data.columns.spans`.
ANNOTATED = pa.schema([("note_id", pa.string()), ("text", pa.string()), ("spans", pa.string())])


@dataclass(frozen=True)
class Annotated:
    """A note and the spans over it."""

    note_id: str
    text: str
    spans: list[Span]


def write(notes: Iterable[Annotated], tool: Tool, path: Path, source: str) -> tuple[int, int]:
    """Write the file that the tool imports, note by note; returns how many notes and spans. `source`: who set them."""
    n_notes = n_spans = 0
    before, between, after = ("[\n", ",\n", "\n]\n") if tool == "label-studio" else ("", "\n", "\n")
    with path.open("w", encoding="utf-8") as file:
        file.write(before)
        for note in notes:
            record = _task(note, source) if tool == "label-studio" else _line(note)
            file.write((between if n_notes else "") + json.dumps(record, ensure_ascii=False))
            n_notes, n_spans = n_notes + 1, n_spans + len(note.spans)
        file.write(after)
    return n_notes, n_spans


def read(path: Path) -> tuple[pa.Table, int]:
    """The annotated notes of a file that one of the tools exported, and how many tasks had no annotation.

    Raises `InputError` with every record that is not as the tools write it; no message quotes a text.
    """
    notes, problems, n_without = dict[str, Annotated](), [], 0
    for number, record in enumerate(_records(path), start=1):
        try:
            note = _annotated(record)
            if note is not None and note.note_id in notes:
                raise ValueError("has the note_id of an earlier record; keep one of them")
        except ValueError as error:
            problems.append(Problem(f"{path}: record {number}", str(error)))
            continue
        if note is None:
            n_without += 1
        else:
            notes[note.note_id] = note
    if problems:
        raise InputError(problems)
    if not notes:
        raise InputError([Problem(str(path), "no note in it was annotated")])
    cells = [
        {"note_id": n.note_id, "text": n.text, "spans": json.dumps(n.spans, ensure_ascii=False)} for n in notes.values()
    ]
    return rows.table(cells, ANNOTATED), n_without


def _task(note: Annotated, source: str) -> Record:
    """A task of Label Studio, for a labelling interface with <Labels name="label"> over <Text name="text">."""
    result = [
        {
            "id": f"span{number}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "text": note.text[start:end], "labels": [kind]},
        }
        for number, (kind, start, end) in enumerate(note.spans)
    ]
    data = {"text": note.text, "note_id": note.note_id}
    return {"data": data, "predictions": [{"model_version": source, "result": result}]}


def _line(note: Annotated) -> Record:
    """A line of doccano. Its column of labels is called `label` unless the import says otherwise."""
    return {
        "text": note.text,
        "label": [[start, end, kind] for kind, start, end in note.spans],
        "note_id": note.note_id,
    }


def _records(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip()[:1] == "[":
            yield from json.loads(text)
        else:  # not splitlines: a note may hold other separators of lines
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except (OSError, ValueError, RecursionError):
        what = "cannot be read; it must be Label Studio's export `JSON`, or doccano's `JSONL`, in UTF-8"
        raise InputError([Problem(str(path), what)]) from None


def _annotated(record: Any) -> Annotated | None:
    """One record of either tool; None if nobody annotated it. Raises ValueError if it is neither's."""
    fields = record.get("data", record) if isinstance(record, dict) else None
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise ValueError("has no text; Label Studio's export must be `JSON`, doccano's `JSONL`")
    note_id, text = fields.get("note_id"), fields["text"]
    if not isinstance(note_id, str) or not note_id:
        raise ValueError("has no note_id: it does not come from `raypipe export`")
    try:
        annotations = _annotations(record) if "data" in record else [record]
        spans = [span for one in annotations for span in (_regions(one) if "data" in record else _spans_of_line(one))]
        parsed(json.dumps([span for span, _ in spans]), len(text))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ValueError("holds a span that is not of its text, or no spans as the tool writes them") from None
    if len(annotations) != 1:
        if annotations:
            raise ValueError(f"has {len(annotations)} annotations; leave the one that counts in Label Studio")
        return None
    if any(isinstance(quote, str) and _plain(quote) != _plain(text[s:e]) for (_, s, e), quote in spans):
        raise ValueError("quotes other words than its spans cover: the tool counted other characters (emoji?)")
    return Annotated(note_id, text, [span for span, _ in spans])


Quoted = tuple[Span, object]  # a span, and the words that the tool says it covers


def _annotations(task: Record) -> list[Record]:
    """What annotators of Label Studio submitted, without what they skipped."""
    return [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]


def _regions(annotation: Record) -> list[Quoted]:
    values = [region["value"] for region in annotation["result"] if region["type"] == "labels"]
    return [((kind, v["start"], v["end"]), v.get("text")) for v in values for kind in v["labels"]]


def _spans_of_line(line: Record) -> list[Quoted]:
    if "entities" in line:
        return [((e["label"], e["start_offset"], e["end_offset"]), None) for e in line["entities"]]
    return [((kind, start, end), None) for start, end, kind in line["label"]]


def _plain(text: str) -> str:
    """Without what Label Studio changes in the words that it quotes: ends, and how a line's end is written."""
    return " ".join(text.replace("\\n", "\n").split())
