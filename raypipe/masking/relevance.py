"""Strategies that choose by the relevance of words: DecSelfMask and its controls.

Source: DecSelfMask, arXiv 2606.09466, its code as read in methods 1.3, and methods 1.7 and 4 [ours].
"""

from __future__ import annotations

import numpy as np

from raypipe.masking.case import Case
from raypipe.masking.selection import best, draw, hysteresis
from raypipe.masking.spans import NOTHING, PLAIN, Hidden
from raypipe.words import F32


def relevance(case: Case) -> Hidden:
    """Hide the most relevant words [paper]: `topk`, `sample` [ours] or `hysteresis` [code].

    The authors smooth and threshold over tokens and then widen to words; we do it over words (relevance of a word =
    maximum over its tokens, so "any token above" is "the word above"). What differs: a neighbour is a word, not a
    piece of the same word, so a lone peak takes the two words beside it rather than its own pieces; and punctuation is
    no neighbour. In return a plan does not depend on the scorer's tokenizer.
    """
    return NOTHING if case.relevance_W is None else _select(case, _normalised(case.relevance_W))


def least_relevant(case: Case) -> Hidden:
    """The same choice upside down: the key control, for if it does as well, relevance is not what helps [ours]."""
    return NOTHING if case.relevance_W is None else _select(case, 1 - _normalised(case.relevance_W))


def shuffled_relevance(case: Case) -> Hidden:
    """The same scores at the wrong words: rotated over the eligible words by a seeded offset [ours].

    A rotation is the permutation that keeps neighbours together, so that amount and span lengths stay as they were
    while the link between score and word is gone.
    """
    if case.relevance_W is None:
        return NOTHING
    relevance_W, eligible_E = _normalised(case.relevance_W).copy(), case.pool.eligible_E
    offset = 1 + int(case.uniforms(1, stream=7)[0] * (len(eligible_E) - 1))
    score_E = relevance_W[eligible_E]
    relevance_W[eligible_E] = np.concatenate((score_E[-offset:], score_E[:-offset]))
    return _select(case, relevance_W)


def _normalised(relevance_W: F32) -> F32:
    """Relative to the largest magnitude of the note; negative relevance counts as none (1.2, step 7 [code])."""
    top = max(float(relevance_W.max(initial=0)), -float(relevance_W.min(initial=0)))
    return (np.maximum(relevance_W, 0) / (top or 1.0)).astype(np.float32, copy=False)


def _select(case: Case, relevance_W: F32) -> Hidden:
    settings, eligible_E = case.settings, case.pool.eligible_E
    if settings.selection == "hysteresis":
        kind_W = case.visible()
        above_W = hysteresis(relevance_W, settings.hysteresis)
        kind_W[eligible_E] = np.where(above_W[eligible_E], PLAIN, kind_W[eligible_E])
        return case.hide(kind_W)
    score_E = relevance_W[eligible_E]
    if settings.selection == "topk":
        return case.hide_eligible(best(score_E, case.budget))
    weight_E = score_E.astype(np.float64) + 1e-6
    return case.hide_eligible(draw(weight_E, case.budget, case.uniforms(len(eligible_E)), settings.temperature))
