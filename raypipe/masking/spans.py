"""Hidden words as character spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raypipe.words import I32, Bools, Index

Kinds = npt.NDArray[np.int8]

VISIBLE, PLAIN, ENTITY, BASE = -1, 0, 1, 2  # kinds of a word; a span has one of the last three

_YES = np.ones(1, dtype=np.bool_)


@dataclass(frozen=True)
class Hidden:
    """What an arm hides in a note: sorted, disjoint character spans."""

    start_S: I32
    end_S: I32
    kind_S: Kinds
    n_masked: int  # eligible words inside


NOTHING = Hidden(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int8), 0)


def hidden_spans(
    hidden_H: Index, kind_H: Kinds, words_W2: I32, inner_W: Bools, barrier_W: Bools | None, longest: int | None
) -> Hidden:
    """Maximal runs of hidden words of one kind, as character spans (docs/method.md, section 6.2).

    `hidden_H` are word numbers, ascending. Two hidden words with a single stop-word between them are one span; an
    eligible word between them stays visible, because hiding it would exceed the ratio. Runs of more than `longest`
    words are cut. No span reaches over a barrier.
    """
    if not len(hidden_H):
        return NOTHING
    left, right = hidden_H[:-1], hidden_H[1:]
    gap = right - left
    joined = (gap == 1) | ((gap == 2) & inner_W[left + 1])
    joined &= kind_H[:-1] == kind_H[1:]
    if barrier_W is not None:
        joined &= ~(barrier_W[left + 1] | barrier_W[right])
    starts = np.concatenate((_YES, ~joined))
    is_cut = longest is not None and _may_exceed(hidden_H, longest)
    if longest is not None and is_cut:
        starts |= _overflow(hidden_H, starts, longest)
    first, last = hidden_H[starts], hidden_H[np.concatenate((starts[1:], _YES))]
    kind_S = kind_H[starts]
    if is_cut:
        first, last, kind_S = _trimmed(first, last, kind_S, inner_W)
    n_masked = len(hidden_H) - int(np.count_nonzero(inner_W[hidden_H]))
    return Hidden(words_W2[first, 0], words_W2[last, 1], kind_S, n_masked)


def _may_exceed(hidden_H: Index, longest: int) -> bool:
    """Whether some run may have more than `longest` words. Of such a run at least every second word is hidden."""
    half = (longest + 1) // 2
    return len(hidden_H) > half and bool((hidden_H[half:] - hidden_H[:-half] <= longest + 1).any())


def _trimmed(first: Index, last: Index, kind_S: Kinds, inner_W: Bools) -> tuple[Index, Index, Kinds]:
    """Spans without stop-words at their edges. Only the cut of a long run leaves some there."""
    while (at_edge := inner_W[first] & (first <= last)).any():
        first = first + at_edge
    while (at_edge := inner_W[last] & (first <= last)).any():
        last = last - at_edge
    is_left = first <= last
    return first[is_left], last[is_left], kind_S[is_left]


def _overflow(hidden_H: Index, starts: Bools, longest: int) -> Bools:
    """Where a run reaches a multiple of `longest` words and a new span must begin."""
    first_H = hidden_H[starts][np.cumsum(starts) - 1]
    chunk_H = (hidden_H - first_H) // longest
    return np.concatenate(([False], np.diff(chunk_H) > 0))
