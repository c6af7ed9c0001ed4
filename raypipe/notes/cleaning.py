"""Checks and normalises notes: a row of raw values in, a row of `rows.NOTES` out, with an error code if it is unusable.

Nothing is dropped here. A row whose id cannot be used gets an id made of its place (`E_ID:<file>:<row>`), so that the
audit counts it too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code, RowError
from raypipe.notes import annotated_spans
from raypipe.notes.placeholders import Replacer
from raypipe.words import normalise

MAX_ID = 512
_WORD_CHARACTER = re.compile(r"[^\W_]")  # what a word of words.py begins with

UNREADABLE = "?"  # neither spans nor tags
EXTRA = ("tags", "spans")  # columns of text that are read where the config names them

Raw = Mapping[str, Sequence[Any]]  # note_id, and any of group_id, text and EXTRA: str, bytes, int, None or worse


def schema(columns: Sequence[str]) -> pa.Schema:
    """The fields of `rows.NOTES` among `columns`, then those of `EXTRA` among them."""
    fields = [field for field in rows.NOTES if field.name in columns]
    return pa.schema([*fields, *((name, pa.string()) for name in EXTRA if name in columns)])


def clean(
    raw: Raw, columns: Sequence[str], max_chars: int, place: str, first_row: int, replace: Replacer | None = None
) -> pa.Table:
    """Raw rows as a table with `schema(columns)`; `error` is null or one of `errors.Code`.

    `place` and `first_row` (its number within `place`) name a row that has no id. A `Code` in place of a text means
    that the reader already refused the row. `replace` puts placeholders into texts.
    """
    out: dict[str, list[str | None]] = {name: [] for name in ("note_id", "group_id", "text", "error", *EXTRA)}
    n_rows = len(raw["note_id"])
    nothing = [None] * n_rows
    values = (raw["note_id"], *(raw.get(name, nothing) for name in ("group_id", "text", *EXTRA)))
    for i, (raw_id, raw_group, raw_text, *raw_extra) in enumerate(zip(*values, strict=True)):
        note_id = as_id(raw_id)
        text, error = clean_text(raw_text, max_chars) if "text" in raw else (None, None)
        if note_id is None and not isinstance(raw_text, Code):
            error = Code.ID
        extra = {name: None if error else as_cell(value) for name, value in zip(EXTRA, raw_extra, strict=True)}
        if extra["spans"] and (before := as_text(raw_text)) not in (None, text):
            extra["spans"] = annotated_spans.in_nfc(extra["spans"], before)
        if replace is not None and text is not None and not error:
            try:
                text, extra["spans"], extra["tags"] = replace(text, extra["spans"], extra["tags"])
            except RowError as refused:
                error, extra = refused.code, dict.fromkeys(EXTRA)
        out["note_id"].append(note_id or f"{Code.ID}:{place}:{first_row + i}")
        out["group_id"].append(as_id(raw_group))
        out["text"].append(None if error else text)
        out["error"].append(error)
        for name in EXTRA:
            out[name].append(extra[name])
    fields = schema(columns)
    return pa.Table.from_pydict({name: out[name] for name in fields.names}, schema=fields)


def as_id(value: Any) -> str | None:
    """An id as a string, or None if it is null, blank, over 512 characters, broken, or neither text nor integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = as_text(value)
    return text if text is not None and text.strip() and len(text) <= MAX_ID else None


def as_cell(value: Any) -> str | None:
    """A cell of annotations as text. What cannot be read must not pass for an empty cell: it becomes `UNREADABLE`."""
    text = json.dumps(value) if isinstance(value, list) else as_text(value)  # spans in JSONL may be no string
    return UNREADABLE if text is None and value is not None else text


def as_text(value: Any) -> str | None:
    """A string that can be written as UTF-8, or None."""
    try:
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str) or isinstance(text, Code):
            return None
        text.isascii() or text.encode()  # a lone surrogate, from JSON or from a broken CSV, cannot be encoded
    except UnicodeError:
        return None
    return text


def clean_text(value: Any, max_chars: int) -> tuple[str | None, Code | None]:
    """The text in NFC, or why it cannot be used. Size is checked before anything is decoded or tokenised."""
    if isinstance(value, Code):
        return None, value
    if value is None:
        return None, Code.NULL
    if not isinstance(value, str | bytes):
        return None, Code.TYPE
    if len(value) > max_chars * (4 if isinstance(value, bytes) else 1):  # a character has at most 4 bytes
        return None, Code.TOO_BIG
    text = as_text(value)
    if text is None:
        return None, Code.UTF8
    text = normalise(text)
    if len(text) > max_chars:
        return None, Code.TOO_BIG
    return (text, None) if _WORD_CHARACTER.search(text) else (None, Code.EMPTY)


def hashed(name: str) -> str:
    """A hash that stands for a note in messages, because its id may be a hospital's."""
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
