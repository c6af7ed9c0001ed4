"""Difference-Masking: hide words that resemble the words by which the corpus differs from general language.

arXiv 2305.14577 and its code, text part, adapted to decoders: docs/method.md, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.errors import InputError
from raypipe.masking.case import Case
from raypipe.masking.selection import best, draw
from raypipe.masking.spans import Hidden
from raypipe.masking.statistics import Statistics
from raypipe.masking.vectors import unit
from raypipe.settings.config import DifferenceMasking, Masking
from raypipe.words import F64


@dataclass(frozen=True)
class Similarity:
    """How similar each word of the corpus is to the anchors."""

    statistics: Statistics
    score_V: F64  # largest cosine with an anchor; the last entry, -1, is for words outside the table
    place_V: F64  # from 1 = least similar word of the corpus to V = most similar; 0 for words outside the table


def prepare_difference(settings: Masking, statistics: Statistics) -> Similarity:
    """Anchors by TF-ICF and the similarity of every word type. Raises `InputError` without counts or vectors."""
    if statistics.general_V is None or statistics.vectors_VD is None:
        raise InputError("masking.strategy difference_masking needs general word counts and word vectors")
    tficf_V = statistics.tficf()
    anchor_K = np.array([v for v in best(tficf_V, settings.difference.anchors) if tficf_V[v] > -np.inf], dtype=int)
    if not len(anchor_K):
        raise InputError("masking.strategy difference_masking has no anchor: every word of the corpus is too rare")
    unit_VD = unit(statistics.vectors_VD)
    score_V = (unit_VD @ unit_VD[anchor_K].T).max(axis=1)
    place_V = np.empty(len(score_V))
    place_V[best(score_V, len(score_V))] = np.arange(len(score_V), 0, -1)
    return Similarity(statistics, np.append(score_V, -1.0), np.append(place_V, 0.0))


def probabilities(score_N: F64, place_N: F64, settings: DifferenceMasking) -> F64:
    """Probability of each word to be drawn first.

    `rank`, as in the authors' code: the most similar of n words weighs n, the least similar 1. `similarity`:
    max(cosine, 0)^gamma. `rank_global`: the rank among all words of the corpus. `alpha` mixes with uniform.
    """
    n = len(score_N)
    if settings.weight == "rank":
        weight_N = np.empty(n)
        weight_N[best(score_N, n)] = np.arange(n, 0, -1)
    else:
        weight_N = np.maximum(score_N, 0) ** settings.gamma if settings.weight == "similarity" else place_N
    total = weight_N.sum()
    share_N = weight_N / total if total > 0 else np.full(n, 1 / n)
    return settings.alpha * share_N + (1 - settings.alpha) / n


def difference_masking(case: Case) -> Hidden:
    """Draw words without replacement by similarity to the anchors. The authors draw sub-tokens; we draw words."""
    similarity: Similarity = case.prepared
    type_E = similarity.statistics.lookup(case.note.words)[case.pool.eligible_E]
    chance_E = probabilities(similarity.score_V[type_E], similarity.place_V[type_E], case.settings.difference)
    return case.hide_eligible(draw(chance_E, case.budget, case.uniforms(len(chance_E))))
