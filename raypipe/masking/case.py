"""What a masking strategy sees: one note, the words it may hide, how many, and seeded random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raypipe.errors import Code, RowError
from raypipe.guard import limits
from raypipe.masking.draws import uniforms
from raypipe.masking.spans import VISIBLE, Hidden, Kinds, hidden_spans
from raypipe.masking.stopwords import STOP_WORDS
from raypipe.settings.config import Masking
from raypipe.words import F32, F64, I32, Bools, Index


def phi_ranges(text: str, patterns: Sequence[str]) -> I32:
    """Character ranges [P, 2] that some pattern matches, in the order of the patterns.

    Raises `RowError(PATTERN)` if one of them takes too long on this text.
    """
    try:
        ranges = [(start, end) for pattern in patterns for start, end in limits.spans(pattern, text) if end > start]
    except TimeoutError:
        raise RowError(Code.PATTERN) from None
    return np.asarray(ranges, dtype=np.int32).reshape(-1, 2)


def _n_before(is_counted_W: Bools) -> Index:
    n_before = np.zeros(len(is_counted_W) + 1, dtype=np.intp)
    np.cumsum(is_counted_W, out=n_before[1:])
    return n_before


@dataclass(frozen=True)
class Pool:
    """The words that an arm may hide."""

    eligible_W: Bools
    eligible_E: Index  # their word numbers, ascending
    inner_W: Bools  # stop-words: they may lie inside a span, but cannot be chosen
    barrier_W: Bools | None  # protected text stands before this word: no span may reach over it

    @cached_property
    def n_eligible_before(self) -> Index:
        """Number of eligible words to the left of each word, [W + 1]."""
        return _n_before(self.eligible_W)

    @cached_property
    def n_closed_before(self) -> Index | None:
        """Number of words to the left of each word that no span may contain, [W + 1]; None if there are none."""
        closed_W = self.eligible_W == self.inner_W  # no word is both
        return _n_before(closed_W) if closed_W.any() else None

    @cached_property
    def eligible(self) -> list[bool]:
        """`eligible_W` for loops over words: reading single elements of an array is slow."""
        return self.eligible_W.tolist()

    @cached_property
    def inner(self) -> list[bool]:
        """`inner_W` for loops over words."""
        return self.inner_W.tolist()

    def is_barred(self, word: int) -> bool:
        """Whether protected text stands before this word."""
        return self.barrier_W is not None and bool(self.barrier_W[word])


class Note:
    """A note, with what all arms compute from it once."""

    def __init__(
        self,
        text: str,
        words_W2: I32,
        relevance_QW: F32 | None = None,
        tags: Sequence[str] | None = None,
        is_cut: bool = True,
    ) -> None:
        self.text = text
        self.words_W2 = words_W2
        self.relevance_QW = relevance_QW
        self.tags = tags
        self.is_cut = is_cut
        self._pools: dict[tuple[bool, tuple[str, ...]], Pool] = {}

    @cached_property
    def words(self) -> list[str]:
        """The words in lower case."""
        lower, (start_W, end_W) = self.text.lower(), self.words_W2.T.tolist() if len(self.words_W2) else ([], [])
        if len(lower) == len(self.text):
            return [lower[start:end] for start, end in zip(start_W, end_W, strict=True)]
        # some capitals become two characters in lower case, for example a Turkish one
        return [self.text[start:end].lower() for start, end in zip(start_W, end_W, strict=True)]

    @cached_property
    def bounds(self) -> list[list[int]]:
        """`words_W2` for loops over words."""
        return self.words_W2.tolist()

    def pool(self, settings: Masking) -> Pool:
        """Words that may be hidden: not a stop-word, not protected, and within what the scorer could see."""
        key = (settings.stop_words, settings.phi_patterns)
        if key not in self._pools:
            self._pools[key] = self._pool(*key)
        return self._pools[key]

    def _pool(self, spare_stop_words: bool, patterns: tuple[str, ...]) -> Pool:
        n_words = len(self.words_W2)
        if spare_stop_words:
            inner_W = np.fromiter(map(STOP_WORDS.__contains__, self.words), np.bool_, n_words)
        else:
            inner_W = np.zeros(n_words, dtype=np.bool_)
        eligible_W = ~inner_W & self.is_seen
        if not patterns:
            return Pool(eligible_W, np.flatnonzero(eligible_W), inner_W, None)
        phi_W, barrier_W = self.protected(patterns)
        eligible_W &= ~phi_W
        return Pool(eligible_W, np.flatnonzero(eligible_W), inner_W & ~phi_W, barrier_W)

    def protected(self, patterns: tuple[str, ...]) -> tuple[Bools, Bools]:
        """Words that protected text touches, and words right after protected text that touches no word."""
        phi_W, barrier_W = np.zeros((2, len(self.words_W2)), dtype=np.bool_)
        for start, end in phi_ranges(self.text, patterns) if patterns else ():
            first = int(np.searchsorted(self.words_W2[:, 1], start, side="right"))
            last = int(np.searchsorted(self.words_W2[:, 0], end, side="left"))
            phi_W[first:last] = True
            barrier_W[first : max(last, first) + 1] = True
        return phi_W, barrier_W

    @cached_property
    def is_seen(self) -> Bools:
        """Words between the first and the last with any relevance.

        An over-long note is cut for the scorer, and the words that it did not see have relevance 0. No arm may hide
        them, so that all arms choose from the same words; `least_relevant` would otherwise hide nothing else.
        """
        seen_W = np.ones(len(self.words_W2), dtype=np.bool_)
        if self.is_cut and self.relevance_QW is not None:
            seen = np.flatnonzero(self.relevance_QW.any(axis=0))
            if len(seen):
                seen_W[: seen[0]] = False
                seen_W[seen[-1] + 1 :] = False
        return seen_W


@dataclass(frozen=True)
class Case:
    """One decision: which words of this note does this arm hide for this task and draw?"""

    note: Note
    pool: Pool
    settings: Masking
    budget: int  # eligible words to hide, at most len(pool.eligible_E)
    is_matched: bool  # the budget copies another arm
    relevance_W: F32 | None  # of the task; None if the run has no relevance
    key: int  # seeds the random numbers
    prepared: Any  # the result of the strategy's `prepare`
    reference: Hidden | None  # what the matched arm hides

    def uniforms(self, n: int, stream: int = 0) -> F64:
        """`n` seeded numbers in (0, 1)."""
        return uniforms(self.key, n, stream)

    def hide(self, kind_W: Kinds) -> Hidden:
        """Spans of the words whose kind is not VISIBLE; words that may not be hidden must be VISIBLE."""
        hidden_H = np.flatnonzero(kind_W >= 0)
        return self._spans(hidden_H, kind_W[hidden_H])

    def hide_eligible(self, chosen: Index) -> Hidden:
        """Spans of the chosen eligible words, all plain; `chosen` indexes `pool.eligible_E`."""
        return self._spans(np.sort(self.pool.eligible_E[chosen]), np.zeros(len(chosen), dtype=np.int8))

    def visible(self) -> Kinds:
        """A fresh array of kinds that hides nothing."""
        return np.full(len(self.note.words_W2), VISIBLE, dtype=np.int8)

    def _spans(self, hidden_H: Index, kind_H: Kinds) -> Hidden:
        pool, longest = self.pool, self.settings.max_span_words
        return hidden_spans(hidden_H, kind_H, self.note.words_W2, pool.inner_W, pool.barrier_W, longest)
