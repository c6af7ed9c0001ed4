"""Strategies that choose by the relevance of words: DecSelfMask and its controls.

DecSelfMask, arXiv 2606.09466, and its code: docs/method.md, section 5.
"""

from __future__ import annotations

import numpy as np

from raypipe.masking.case import Case
from raypipe.masking.selection import best, draw, hysteresis
from raypipe.masking.spans import NOTHING, PLAIN, Hidden
from raypipe.words import F32


def relevance(case: Case) -> Hidden:
    """Hide the most relevant words: the `topk`, a `sample`, or by `hysteresis` as the authors' code does.

    The authors smooth and threshold over tokens and then widen to words; we do it over words, whose relevance is the
    maximum over their tokens. So a neighbour is a word and not a piece of the same word: a lone peak takes the two
    words beside it, and punctuation is no neighbour. In return, a plan does not depend on the scorer's tokenizer.
    """
    return NOTHING if case.relevance_W is None else _select(case, _normalised(case.relevance_W))


def least_relevant(case: Case) -> Hidden:
    """Hide the least relevant words. The key control: if it does as well, relevance is not what helps."""
    return NOTHING if case.relevance_W is None else _select(case, 1 - _normalised(case.relevance_W))


def shuffled_relevance(case: Case) -> Hidden:
    """Hide words by the scores of other words: scores are rotated over the eligible words by a seeded offset.

    A rotation keeps neighbours together, so the amount and the span lengths stay as they were, while the link between
    score and word is gone.
    """
    if case.relevance_W is None:
        return NOTHING
    relevance_W, eligible_E = _normalised(case.relevance_W).copy(), case.pool.eligible_E
    offset = 1 + int(case.uniforms(1, stream=7)[0] * (len(eligible_E) - 1))
    score_E = relevance_W[eligible_E]
    relevance_W[eligible_E] = np.concatenate((score_E[-offset:], score_E[:-offset]))
    return _select(case, relevance_W)


def _normalised(relevance_W: F32) -> F32:
    """Relevance divided by the note's largest magnitude, as in the authors' code; negative relevance becomes 0."""
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
