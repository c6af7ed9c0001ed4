"""Which spans share an example, and how much of the note around them it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.models.pieces import Tokens


@dataclass(frozen=True)
class Window:
    """Spans first..last of a note, which is cut into visible and hidden pieces by turns, and the text beside them."""

    first: int
    last: int
    n_left: int  # tokens shown before the first span
    n_right: int  # tokens shown after the last span
    n_cut: int  # tokens of the note that are not shown

    @property
    def n_spans(self) -> int:
        """Spans that the window hides."""
        return self.last - self.first + 1

    def parts(self, tokens: Sequence[Tokens]) -> tuple[Tokens, Sequence[Tokens], Tokens]:
        """Text before, pieces from the first to the last span, text after. Spans outside are text like any other."""
        before = Tokens.joined(tokens[: 2 * self.first + 1])
        after = Tokens.joined(tokens[2 * self.last + 2 :])
        left = before[len(before.ids) - self.n_left :]
        return left, tokens[2 * self.first + 1 : 2 * self.last + 2], after[: self.n_right]


def windows(lengths: Sequence[int], room: int, per_example: int, mark_tokens: int) -> list[Window]:
    """Groups spans in reading order, each group as large as `per_example` and `room` allow.

    `lengths` are the tokens of visible and hidden pieces by turns; `room` is for the note, its sentinels and the
    answer; `mark_tokens` is what a span adds in sentinels. Spans that alone exceed the room are left out.
    """
    out: list[Window] = []
    first, cost = 0, 0
    n_spans = len(lengths) // 2
    for number in range(n_spans):
        alone = lengths[2 * number + 1] + mark_tokens
        joined = cost + lengths[2 * number] + alone
        if number > first and (joined > room or number - first == per_example):
            _append(out, lengths, first, number - 1, room - cost)
            first, joined = number, alone
        cost = alone if number == first else joined
    _append(out, lengths, first, n_spans - 1, room - cost)
    return out


def _append(out: list[Window], lengths: Sequence[int], first: int, last: int, spare: int) -> None:
    """Shares the spare room between left and right; what one side does not need goes to the other."""
    if spare < 0:
        return
    left, right = sum(lengths[: 2 * first + 1]), sum(lengths[2 * last + 2 :])
    n_left = min(left, max(spare // 2, spare - right))
    n_right = min(right, spare - n_left)
    out.append(Window(first, last, n_left, n_right, left - n_left + right - n_right))
