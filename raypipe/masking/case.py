"""What a masking strategy sees: one note, the words it may hide, how many, and seeded random numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from raypipe.config import Masking
from raypipe.masking.draws import Uniforms, uniforms
from raypipe.masking.spans import VISIBLE, Hidden, Kinds, hidden_spans
from raypipe.masking.stopwords import STOP_WORDS
from raypipe.words import Floats, Ints

Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def phi_ranges(text: str, patterns: Sequence[str]) -> Ints:
    """Character ranges [P, 2] that some pattern matches, in the order of the patterns."""
    found = [m.span() for pattern in patterns for m in _compiled(pattern).finditer(text) if m.end() > m.start()]
    return np.asarray(found, dtype=np.int32).reshape(-1, 2)


@dataclass(frozen=True)
class Pool:
    """The words that an arm may hide."""

    eligible_W: Bools
    eligible_E: Index  # their word numbers, ascending
    inner_W: Bools  # stop-words: they may lie inside a span, but are nobody's choice
    barrier_W: Bools  # no span may reach from before this word into it: protected text stands between


class Note:
    """A note and what is computed from it at most once, whatever the number of arms."""

    def __init__(self, text: str, words_W2: Ints, relevance_QW: Floats | None, tags: Sequence[str] | None) -> None:
        self.text = text
        self.words_W2 = words_W2
        self.relevance_QW = relevance_QW
        self.tags = tags
        self._pools: dict[tuple[bool, tuple[str, ...]], Pool] = {}

    @cached_property
    def words(self) -> list[str]:
        """The words in lower case."""
        lower, bounds = self.text.lower(), self.words_W2.tolist()
        if len(lower) == len(self.text):
            return [lower[start:end] for start, end in bounds]
        return [self.text[start:end].lower() for start, end in bounds]  # a capital that grows, as in Turkish

    def pool(self, settings: Masking) -> Pool:
        """Words that may be hidden: not a stop-word, not protected, and within what the scorer could see."""
        key = (settings.stop_words, settings.phi_patterns)
        if key not in self._pools:
            self._pools[key] = self._pool(*key)
        return self._pools[key]

    def _pool(self, spare_stop_words: bool, patterns: tuple[str, ...]) -> Pool:
        n_words = len(self.words_W2)
        inner_W = np.zeros(n_words, dtype=np.bool_)
        if spare_stop_words:
            inner_W[:] = [word in STOP_WORDS for word in self.words]
        phi_W, barrier_W = self.protected(patterns)
        inner_W &= ~phi_W
        eligible_W = ~inner_W & ~phi_W & self._is_seen
        return Pool(eligible_W, np.flatnonzero(eligible_W), inner_W, barrier_W)

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
    def _is_seen(self) -> Bools:
        """Words between the first and the last with any relevance.

        An over-long note is cut for the scorer and its unseen words have relevance 0. They are nobody's targets, so
        that all arms choose from the same words; `least_relevant` would otherwise hide only what was never seen.
        """
        seen_W = np.ones(len(self.words_W2), dtype=np.bool_)
        if self.relevance_QW is not None:
            known = np.flatnonzero(self.relevance_QW.any(axis=0))
            if len(known):
                seen_W[: known[0]] = False
                seen_W[known[-1] + 1 :] = False
        return seen_W


@dataclass(frozen=True)
class Case:
    """One decision: which words of this note does this arm hide for this task and draw?"""

    note: Note
    pool: Pool
    settings: Masking
    budget: int  # eligible words to hide, at most len(pool.eligible_E)
    is_matched: bool  # the budget copies another arm
    relevance_W: Floats | None  # of the task; None if the run has no relevance
    key: int  # of the random numbers
    prepared: Any  # what the strategy's `prepare` made of the corpus statistics
    reference: Hidden | None  # what the matched arm hides

    def uniforms(self, n: int, stream: int = 0) -> Uniforms:
        """`n` seeded numbers in (0, 1)."""
        return uniforms(self.key, n, stream)

    def hide(self, kind_W: Kinds) -> Hidden:
        """Spans of the words whose kind is not VISIBLE; words that may not be hidden must be VISIBLE."""
        longest = self.settings.max_span_words
        return hidden_spans(kind_W, self.note.words_W2, self.pool.inner_W, self.pool.barrier_W, longest)

    def hide_eligible(self, chosen: Index) -> Hidden:
        """Spans of the chosen eligible words, all plain; `chosen` indexes `pool.eligible_E`."""
        kind_W = self.visible()
        kind_W[self.pool.eligible_E[chosen]] = 0
        return self.hide(kind_W)

    def visible(self) -> Kinds:
        """A fresh array of kinds that hides nothing."""
        return np.full(len(self.note.words_W2), VISIBLE, dtype=np.int8)
