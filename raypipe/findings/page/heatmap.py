"""A note with its words coloured by relevance, and what each arm would hide of it. Holds note text.

This file only cuts the text into pieces; the template writes each piece through jinja's escaping. Colours are classes
(`p1`..`p8` towards the prediction, `n1`..`n8` against it), so no value of ours becomes CSS.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from raypipe.guard.terminal import printable

Span = tuple[int, int]
SHADES = 8
MAX_CHARS = 4000  # of a note on the page


@dataclass(frozen=True)
class Panel:
    """One arm on the note."""

    title: str  # the arm
    hidden: Sequence[Span] = ()  # characters that the arm would hide, as in `rows.PLAN`
    relevance: Sequence[float] = ()  # of each word; empty: the arm uses none
    caption: str = ""  # "15 % of eligible words"


@dataclass(frozen=True)
class HeatMap:
    """One note, one task, several arms side by side."""

    title: str  # note id and question
    text: str
    words: Sequence[Span]  # character offsets, sorted and disjoint
    panels: Sequence[Panel]
    deciding: Sequence[Span] = ()  # characters that are known to decide; they may overlap
    caption: str = ""  # label, prediction


@dataclass(frozen=True)
class Piece:
    """Text that is written in one colour."""

    text: str
    classes: str
    title: str  # shown on hover


@dataclass(frozen=True)
class Stretch:
    """Consecutive pieces that are boxed together, or not boxed at all."""

    is_hidden: bool
    pieces: list[Piece]


def stretches(heat_map: HeatMap, panel: Panel) -> Iterator[Stretch]:
    """The note as the panel shows it, in order; the pieces join up to the text (its first MAX_CHARS characters)."""
    text = printable(heat_map.text[:MAX_CHARS])
    largest = max((abs(value) for value in panel.relevance), default=0.0) or 1.0
    cuts = {0, len(text)}
    for spans in (heat_map.words, panel.hidden, heat_map.deciding):
        cuts.update(min(int(offset), len(text)) for span in spans for offset in span)
    for hidden, group in groupby(pairwise(sorted(cuts)), key=lambda atom: _span_at(panel.hidden, atom[0])):
        pieces = [_piece(text, atom, heat_map, panel, largest, hidden is not None) for atom in group]
        yield Stretch(hidden is not None, pieces)


def _piece(text: str, atom: Span, heat_map: HeatMap, panel: Panel, largest: float, is_hidden: bool) -> Piece:
    word = _span_at(heat_map.words, atom[0])
    if word is None:
        return Piece(text[slice(*atom)], "", "")
    decides = any(start <= atom[0] < end for start, end in heat_map.deciding)
    value = panel.relevance[word] if panel.relevance else None
    says = [] if value is None else [f"relevance {value:+.3g}"]
    says += ["decides"] * decides + ["hidden"] * is_hidden
    classes = ["" if value is None else _shade(value / largest), "decides" if decides else ""]
    return Piece(text[slice(*atom)], " ".join(filter(None, classes)), ", ".join(says))


def _shade(share: float) -> str:
    """Class of a relevance in [-1, 1]; none near 0, or if it is not a number."""
    step = round(abs(share) * SHADES) if share == share else 0
    return f"{'p' if share > 0 else 'n'}{step}" if step else ""


def _span_at(spans: Sequence[Span], offset: int) -> int | None:
    """Index of the span that holds the character; spans are sorted and disjoint."""
    i = bisect_right(spans, offset, key=lambda span: span[0]) - 1
    return i if i >= 0 and offset < spans[i][1] else None
