"""Identifiers and annotated spans replaced by typed placeholders (`[DATA]`), before anything else reads a note.

What follows in the text moves; annotated spans move with it, and BIO tags stay with their tokens.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from raypipe.errors import Code, RowError
from raypipe.notes import annotated_spans, identifiers
from raypipe.notes.annotated_spans import Span
from raypipe.settings.config import Data


@dataclass(frozen=True)
class Replaced:
    """A text with placeholders. Where an offset of the old text falls into what was replaced, it moves to an end."""

    text: str
    old: list[int]  # bounds in the old text: kept, replaced, kept, ..., kept
    new: list[int]  # the same in the new one

    def moved(self, start: int, end: int) -> tuple[int, int]:
        """Characters start..end of the old text in the new one; of a placeholder, all of it."""
        return self._at(start, 0), self._at(end - 1, 1)

    def _at(self, character: int, is_end: int) -> int:
        part = bisect_right(self.old, character) - 1
        if part % 2:  # replaced
            return self.new[part + is_end]
        return self.new[part] + character - self.old[part] + is_end


def replaced(text: str, spans: Iterable[Span], placeholders: Mapping[str, str]) -> Replaced:
    """The text with a placeholder for each span of a kind that has one; spans that overlap become one."""
    merged: list[Span] = []
    for kind, start, end in sorted(spans, key=lambda span: (span[1], -span[2])):
        if kind not in placeholders:
            continue
        if merged and start < merged[-1][2]:
            merged[-1] = (*merged[-1][:2], max(end, merged[-1][2]))
        else:
            merged.append((kind, start, end))
    old = [0, *(bound for _, start, end in merged for bound in (start, end)), len(text)]
    parts = [text[a:b] for a, b in pairwise(old)]
    parts[1::2] = [placeholders[kind] for kind, _, _ in merged]
    new = [0]
    for part in parts:
        new.append(new[-1] + len(part))
    return Replaced("".join(parts), old, new)


class Replacer:
    """Replaces what `data.placeholders` names in one note after the other."""

    def __init__(self, data: Data) -> None:
        self._placeholders, self._own = data.placeholders, data.identifiers
        self.reads_spans = bool(data.columns.spans and data.placeholders)  # an annotator marks names and dates, too

    def __call__(self, text: str, spans: str | None, tags: str | None) -> tuple[str, str | None, str | None]:
        """Text and the cells of `spans` and `tags`, all of them after replacement.

        Raises `RowError` if a cell holds no spans, or an expression takes too long: what it marks would stay.
        """
        try:
            annotated = annotated_spans.parsed(spans, len(text))
        except (ValueError, RecursionError):
            raise RowError(Code.SPANS) from None
        try:
            marked = [*identifiers.found(text, self._own), *annotated]
        except TimeoutError:
            raise RowError(Code.PATTERN) from None
        now = replaced(text, marked, self._placeholders)
        if spans:
            spans = json.dumps([(kind, *now.moved(start, end)) for kind, start, end in annotated])
        return now.text, spans, None if tags is None else _moved_tags(tags, text, now)


def _moved_tags(tags: str, text: str, now: Replaced) -> str:
    """A tag for each token of the new text: that of the first old token it holds something of."""
    cells = tags.split()
    old = annotated_spans.tokens(text)
    if len(cells) != len(old):
        return tags  # for whoever reads it to complain
    out, last = list[str](), 0
    for tag, (start, end) in zip(cells, old, strict=True):
        _, after = now.moved(start, end)
        if after > last:
            out.append(tag)
            last = _end_of_token(now.text, after)
    return " ".join(out)


def _end_of_token(text: str, position: int) -> int:
    """Where the token ends that holds the character before `position`."""
    while position < len(text) and not text[position].isspace():
        position += 1
    return position
