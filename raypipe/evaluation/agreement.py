"""Do the most relevant words fall on the words that decide a task, where a corpus marks those?

They are planted words or annotators' spans. Beside each share stands what random words would reach and what the least
relevant words reach, because a scorer of good AUC can point away from the deciding words. docs/method.md, section 11.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raypipe.evaluation.resampling import group_weights
from raypipe.words import F32, F64, Bools

Spans = Sequence[tuple[int, int]] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class AnnotatedRelevance:
    """Relevance of the words of one note for one task, beside the annotation of which of them decide it."""

    note_id: str
    relevance_W: F32 | F64  # higher = more relevant
    is_deciding_W: Bools


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1], means over cases. Intervals are 95 %, bootstrapped over notes."""

    top_share: float  # selected words
    hit_share: float  # of the most relevant words, those that decide
    hit_interval: tuple[float, float]
    least_relevant_share: float  # the same of as many least relevant words
    chance: float  # the same of random words = deciding words / all that count
    lift_interval: tuple[float, float]  # of hit_share - chance: above chance if it lies above 0
    average_precision: float
    average_precision_interval: tuple[float, float]
    average_precision_chance: float  # its expectation if the words are ranked at random
    n_cases: int
    n_notes: int


def agreement(
    cases: Sequence[AnnotatedRelevance], top_share: float = 0.15, n_bootstrap: int = 2000, seed: int = 0
) -> Agreement | None:
    """Compare relevance with deciding words at the top `max(1, round(top_share * W))` words; ties go by position.

    Cases without a deciding word are left out; None if no case is left.
    """
    cases = [case for case in cases if case.is_deciding_W.any()]
    if not cases:
        return None
    measures_NM = np.asarray([_measures(case, top_share) for case in cases])
    hit, least, chance, _, precision, precision_chance = measures_NM.mean(axis=0).tolist()
    low_M, high_M = _intervals(measures_NM, [case.note_id for case in cases], n_bootstrap, seed)
    intervals = [(float(low), float(high)) for low, high in zip(low_M, high_M, strict=True)]
    return Agreement(
        top_share=top_share,
        hit_share=hit,
        hit_interval=intervals[0],
        least_relevant_share=least,
        chance=chance,
        lift_interval=intervals[3],
        average_precision=precision,
        average_precision_interval=intervals[4],
        average_precision_chance=precision_chance,
        n_cases=len(cases),
        n_notes=len({case.note_id for case in cases}),
    )


def deciding_words(words_W2: Spans, gold_S2: Spans) -> Bools:
    """Which words [W] share at least one character with a gold span; offsets of either count from the note's start."""
    words = np.asarray(words_W2, dtype=np.int64).reshape(-1, 1, 2)
    gold = np.asarray(gold_S2, dtype=np.int64).reshape(1, -1, 2)
    overlaps_WS = (words[..., 0] < gold[..., 1]) & (gold[..., 0] < words[..., 1])
    return np.asarray(overlaps_WS.any(axis=1))


def _measures(case: AnnotatedRelevance, top_share: float) -> tuple[float, ...]:
    """Hit share, the same of the least relevant, chance, hit share - chance, average precision, its chance."""
    n = len(case.relevance_W)
    k = max(1, round(top_share * n))
    order = np.argsort(-np.asarray(case.relevance_W, dtype=np.float64), kind="stable")
    hit_W = case.is_deciding_W[order]
    n_deciding = int(hit_W.sum())
    rank_W = np.arange(1, n + 1)
    precision = float((np.cumsum(hit_W) / rank_W)[hit_W].mean())
    # Mean of average precision over all orders: a deciding word stands at rank i with probability R/N, and each of
    # the i - 1 words before it decides with probability (R-1)/(N-1).
    harmonic = float((1 / rank_W).sum())
    precision_chance = (harmonic + (n_deciding - 1) / max(n - 1, 1) * (n - harmonic)) / n
    hit, least, chance = float(hit_W[:k].mean()), float(hit_W[-k:].mean()), n_deciding / n
    return hit, least, chance, hit - chance, precision, precision_chance


def _intervals(measures_NM: F64, note_ids: Sequence[str], n_bootstrap: int, seed: int) -> tuple[F64, F64]:
    """95 % percentile intervals of the means. Notes are resampled, not cases: all tasks of a note go together."""
    names, note_N = np.unique(np.asarray(note_ids), return_inverse=True)
    totals_GM = np.zeros((len(names), measures_NM.shape[1]))
    np.add.at(totals_GM, note_N, measures_NM)
    weight_BG = group_weights(np.random.default_rng(seed), n_bootstrap, len(names))
    means_BM = weight_BG @ totals_GM / (weight_BG @ np.bincount(note_N))[:, None]
    low, high = np.percentile(means_BM, [2.5, 97.5], axis=0)
    return low, high
