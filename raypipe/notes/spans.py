"""Cells of `data.columns.spans`: JSON, [[type, start, end], ...], characters of the file's text, end exclusive."""

from __future__ import annotations

import json

from raypipe.words import normalise


def parsed(cell: str | None, n_characters: int) -> list[tuple[str, int, int]]:
    """The spans of one note; none if the cell is empty. Raises ValueError if it is anything but spans of the note."""
    spans = json.loads(cell) if cell else []
    if not isinstance(spans, list):
        raise ValueError("no list")
    for span in spans:
        kinds = [type(part) for part in span] if isinstance(span, list) else []
        if kinds != [str, int, int] or not 0 <= span[1] < span[2] <= n_characters:
            raise ValueError("no span of the note")
    return [(kind, start, end) for kind, start, end in spans]


def in_nfc(cell: str | None, text: str) -> str | None:
    """The cell with its offsets moved to where they lie in the NFC form of `text`; a malformed cell stays as it is."""
    try:
        spans = parsed(cell, len(text))
    except (ValueError, RecursionError):
        return cell
    moved = [(kind, len(normalise(text[:start])), len(normalise(text[:end]))) for kind, start, end in spans]
    return json.dumps(moved)
