"""A note cut at its hidden spans, for the two strings of an example: the masked note, and what fills it.

    single    the <mask_1> was red        cat                          as in DecSelfMask's code
    multi     the<mask_1> was<mask_2>     <mask_1> cat<mask_2> red

`multi` hides the blank before a span too, because most tokenizers make one token of a blank and the word after it.
`single` leaves it in the note, as the authors do, so that the answer begins with the word. docs/method.md, section 6.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Format = Literal["single", "multi"]


@dataclass(frozen=True)
class Pieces:
    """A note cut at the bounds of its spans: visible[0] hidden[0] visible[1] ... hidden[S-1] visible[S]."""

    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    start: tuple[int, ...]  # of every piece in the note, in reading order: visible and hidden by turns


def cut(text: str, start_S: Sequence[int], end_S: Sequence[int], form: Format) -> Pieces:
    """Cuts `text` at sorted, disjoint spans."""
    bounds = [0]
    for start, end in zip(start_S, end_S, strict=True):
        takes_blank = form == "multi" and start > bounds[-1] and text[start - 1] == " "
        bounds += [start - 1 if takes_blank else start, end]
    parts = [text[a:b] for a, b in zip(bounds, [*bounds[1:], len(text)], strict=True)]
    return Pieces(tuple(parts[::2]), tuple(parts[1::2]), tuple(bounds))
