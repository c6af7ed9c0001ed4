"""Annotated spans of a note, (type, start, end) in characters, end exclusive.

A cell of `data.columns.spans` is JSON, [[type, start, end], ...], offsets into the file's text. A cell of
`data.columns.tags` has a BIO tag (`B-Disease I-Disease O`) for each blank-separated token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from raypipe.words import normalise

Span = tuple[str, int, int]
_TAG = re.compile(r"O|[BI](-.+)?")
_TOKEN = re.compile(r"\S+")


def parsed(cell: str | None, n_characters: int) -> list[Span]:
    """The spans of one note; none if the cell is empty. Raises ValueError unless they are spans within the note."""
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


def of_tags(tags: Sequence[str], text: str) -> list[Span]:
    """Entities of BIO tags. An I after an O also begins one; the first tag names the type.

    Raises ValueError unless there is one such tag for each token.
    """
    entities: list[Span] = []
    previous = "O"
    for (start, end), tag in zip(tokens(text), tags, strict=True):
        if not _TAG.fullmatch(tag):  # the column may hold anything, so no message quotes it
            raise ValueError("no BIO tag")
        if tag.startswith("I") and previous != "O":
            entities[-1] = (*entities[-1][:2], end)
        elif tag != "O":
            entities.append((tag.partition("-")[2], start, end))
        previous = tag
    return entities


def tokens(text: str) -> list[tuple[int, int]]:
    """Start and end of each blank-separated token."""
    return [match.span() for match in _TOKEN.finditer(text)]
