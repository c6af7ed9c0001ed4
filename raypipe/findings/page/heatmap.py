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
MAX_WORDS = 40  # of a note in the table


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
    read: Span | None = None  # characters that the model could read of a note longer than its context; None: all

    @property
    def is_signed(self) -> bool:
        """Does relevance say of some word that it speaks against the answer? By default its size alone is stored."""
        return any(value < 0 for panel in self.panels for value in panel.relevance)


@dataclass(frozen=True)
class Word:
    """A word in the table beside the picture, for who cannot see colours or point at words."""

    text: str
    relevance: float | None  # None: no arm uses any, or the model did not read the word
    hidden_by: tuple[str, ...]  # titles of the panels
    decides: bool


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
    is_read: bool = True


def stretches(heat_map: HeatMap, panel: Panel) -> Iterator[Stretch]:
    """The note as the panel shows it, in order; the pieces join up to the text (its first MAX_CHARS characters)."""
    text = printable(heat_map.text[:MAX_CHARS])
    largest = max((abs(value) for value in panel.relevance), default=0.0) or 1.0
    read = heat_map.read or (0, len(text))
    cuts = {0, len(text)}
    for spans in (heat_map.words, panel.hidden, heat_map.deciding, [read]):
        cuts.update(min(int(offset), len(text)) for span in spans for offset in span)

    def kind(atom: Span) -> tuple[int | None, bool]:
        return _span_at(panel.hidden, atom[0]), read[0] <= atom[0] < read[1]

    for (hidden, is_read), group in groupby(pairwise(sorted(cuts)), key=kind):
        pieces = [_piece(text, atom, heat_map, panel, largest, hidden is not None, is_read) for atom in group]
        yield Stretch(hidden is not None, pieces, is_read)


def ranked(heat_map: HeatMap) -> list[Word]:
    """The words that matter most, MAX_WORDS of them; in the order of the note where no arm uses relevance."""
    relevance = next((panel.relevance for panel in heat_map.panels if panel.relevance), [])
    first, last = heat_map.read or (0, len(heat_map.text))
    order = sorted(range(len(heat_map.words)), key=lambda word: -abs(relevance[word]) if relevance else word)
    return [
        Word(
            printable(heat_map.text[start:end]),
            relevance[word] if relevance and first <= start < last else None,
            tuple(panel.title for panel in heat_map.panels if _overlaps(panel.hidden, start, end)),
            _overlaps(heat_map.deciding, start, end),
        )
        for word in order[:MAX_WORDS]
        for start, end in [heat_map.words[word]]
    ]


def _overlaps(spans: Sequence[Span], start: int, end: int) -> bool:
    return any(a < end and start < b for a, b in spans)


def _piece(
    text: str, atom: Span, heat_map: HeatMap, panel: Panel, largest: float, is_hidden: bool, is_read: bool
) -> Piece:
    word = _span_at(heat_map.words, atom[0])
    if word is None:
        return Piece(text[slice(*atom)], "", "")
    decides = any(start <= atom[0] < end for start, end in heat_map.deciding)
    value = panel.relevance[word] if panel.relevance else None
    says = ["not read by the model"] if not is_read else [] if value is None else [f"relevance {value:+.3g}"]
    says += ["decides"] * decides + ["hidden"] * is_hidden
    classes = ["" if value is None or not is_read else _shade(value / largest), "decides" if decides else ""]
    return Piece(text[slice(*atom)], " ".join(filter(None, classes)), ", ".join(says))


def _shade(share: float) -> str:
    """Class of a relevance in [-1, 1]; none near 0, or if it is not a number."""
    step = round(abs(share) * SHADES) if share == share else 0
    return f"{'p' if share > 0 else 'n'}{step}" if step else ""


def _span_at(spans: Sequence[Span], offset: int) -> int | None:
    """Index of the span that holds the character; spans are sorted and disjoint."""
    i = bisect_right(spans, offset, key=lambda span: span[0]) - 1
    return i if i >= 0 and offset < spans[i][1] else None
