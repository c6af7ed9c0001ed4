"""Runs of words that are hidden whole, terms and collocations: all runs of a note at once, as arrays.

The axis U counts the units, in any order; a unit is the words first..last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from raypipe.masking.case import Case
from raypipe.masking.spans import VISIBLE, Kinds
from raypipe.words import Bools, Index

Run = tuple[int, int]  # first and last word


@dataclass(frozen=True)
class Units:
    """Disjoint runs of words."""

    first_U: Index
    last_U: Index
    size_U: Index  # number of eligible words, at least one

    def __len__(self) -> int:
        return len(self.size_U)

    def __getitem__(self, chosen: Index | slice) -> Units:
        return Units(self.first_U[chosen], self.last_U[chosen], self.size_U[chosen])

    def with_words(self, word_N: Index) -> Units:
        """These units, then eligible words as units of their own."""
        one_N = np.ones(len(word_N), dtype=np.intp)
        pairs = (self.first_U, word_N), (self.last_U, word_N), (self.size_U, one_N)
        return Units(*map(np.concatenate, pairs))

    def covered(self, n_words: int) -> Bools:
        """[W], the words inside some unit."""
        edge = np.zeros(n_words + 1, dtype=np.int8)
        edge[self.first_U] += 1
        edge[self.last_U + 1] -= 1
        return edge[:-1].cumsum(dtype=np.int8).view(np.bool_)

    def fitting(self, room: int) -> tuple[Units, int]:
        """The units that fit into `room`, in order, and the room that is left; too large a unit is passed over."""
        n_first = int(np.searchsorted(self.size_U.cumsum(), room, side="right"))  # so many fit one after the other
        left = room - int(self.size_U[:n_first].sum())
        if not left or n_first == len(self):
            return self[:n_first], left
        taken = list(range(n_first))
        for number, size in enumerate(self.size_U[n_first:].tolist(), start=n_first):
            if size <= left:
                taken.append(number)
                left -= size
                if not left:
                    break
        return self[np.array(taken, dtype=np.intp)], left


def allowed(case: Case, runs: Sequence[Run]) -> Units:
    """Runs without protected words, less the stop-words at their ends; runs with no eligible word are left out."""
    pool = case.pool
    # np.array of a list of pairs takes twice as long
    first_U, last_U = np.fromiter(chain.from_iterable(runs), np.intp, 2 * len(runs)).reshape(-1, 2).T
    before_U, until_U = pool.n_eligible_before[first_U], pool.n_eligible_before[last_U + 1]
    is_allowed = until_U > before_U
    if pool.n_closed_before is not None:
        is_allowed &= pool.n_closed_before[first_U] == pool.n_closed_before[last_U + 1]
    if pool.barrier_W is not None:
        n_barred = np.cumsum(pool.barrier_W)
        is_allowed &= n_barred[first_U] == n_barred[last_U]
    before_U, until_U = before_U[is_allowed], until_U[is_allowed]
    return Units(pool.eligible_E[before_U], pool.eligible_E[until_U - 1], until_U - before_U)


def fill_up(case: Case, kind_W: Kinds, units: Units, left: int, kind: int) -> None:
    """Hides `left` more eligible words of the units, one by one; changes `kind_W` in place."""
    for first, last in zip(units.first_U.tolist(), units.last_U.tolist(), strict=True) if left else ():
        for word in range(first, last + 1):
            if left and case.pool.eligible[word] and kind_W[word] == VISIBLE:
                kind_W[word] = kind
                left -= 1
