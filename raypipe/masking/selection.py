"""From scores to the words that are hidden: the k best, k draws, or runs above a threshold."""

from __future__ import annotations

import numpy as np

from raypipe.masking.draws import gumbel
from raypipe.settings.config import Hysteresis
from raypipe.words import F32, F64, Bools, Index

# exp(-x^2/2) at -1, 0, 1, normalised: DecSelfMask's code smooths with sigma 1
KERNEL = np.array([0.27406862, 0.45186276, 0.27406862], dtype=np.float32)


def budget(ratio: float, n_eligible: int) -> int:
    """Number of words to hide: max(1, ratio * n rounded half up), or 0 if none is eligible."""
    return min(n_eligible, max(1, int(ratio * n_eligible + 0.5)))


def best(score_E: F32 | F64, k: int) -> Index:
    """Positions of the `k` largest scores; ties go to the earlier position."""
    return np.argsort(-score_E, kind="stable")[:k]


def draw(weight_E: F32 | F64, k: int, uniform_E: F64, temperature: float = 1.0) -> Index:
    """`k` positions, drawn without replacement with probability proportional to weight^(1/temperature).

    Gumbel top-k: the k largest of log(weight)/temperature + Gumbel noise are such a draw.
    """
    with np.errstate(divide="ignore"):  # weight 0: drawn last
        return best(np.log(weight_E) / temperature + gumbel(uniform_E), k)


def smooth(relevance_W: F32) -> F32:
    """3-tap Gaussian with reflecting ends (docs/method.md, section 5.3)."""
    padded = np.concatenate((relevance_W[:1], relevance_W, relevance_W[-1:]))
    return KERNEL[0] * padded[:-2] + KERNEL[1] * padded[1:-1] + KERNEL[2] * padded[2:]


def hysteresis(relevance_W: F32, settings: Hysteresis) -> Bools:
    """Which words lie in a maximal run above `low` that holds a value above `high`. Relevance lies within 0..1."""
    if not len(relevance_W):
        return np.zeros(0, dtype=np.bool_)
    level_W = smooth(relevance_W) if settings.smooth else relevance_W
    above_W = level_W > settings.low
    run_W = np.cumsum(np.concatenate(([True], above_W[1:] != above_W[:-1]))) - 1
    has_peak = np.zeros(run_W[-1] + 1, dtype=np.bool_)
    np.logical_or.at(has_peak, run_W, level_W > settings.high)
    return above_W & has_peak[run_W]
