"""Mask-specific language modelling: domain terms and other words are hidden at rates of their own.

MSLM, arXiv 2403.18025 and its code, adapted to decoders: docs/method.md, section 7. Its loss is in masking/weights.py.
"""

from __future__ import annotations

import numpy as np

from raypipe.errors import InputError
from raypipe.masking.case import Case
from raypipe.masking.collocations import collocations
from raypipe.masking.selection import best
from raypipe.masking.spans import BASE, ENTITY, Hidden
from raypipe.masking.statistics import Statistics
from raypipe.masking.strategy import COUNTS, GENERAL, LEXICON, NGRAMS, TAGS, TYPE_RELEVANCE
from raypipe.masking.terms import Terms, tagged
from raypipe.masking.units import Units, allowed, fill_up
from raypipe.settings.config import Masking
from raypipe.words import Index

_NEEDS = {
    "lexicon": {LEXICON},
    "ner": {TAGS},
    "tficf": {COUNTS, NGRAMS, GENERAL},
    "attribution": {COUNTS, TYPE_RELEVANCE},
}


def needs(settings: Masking) -> frozenset[str]:
    """What the source of terms needs."""
    return frozenset(_NEEDS[settings.mslm.terms])


def prepare_mslm(settings: Masking, statistics: Statistics) -> Terms | None:
    """The domain terms of the corpus; None if the notes carry their own tags.

    `tficf`: the words most typical of the corpus, and the collocations of two or three words that hold one.
    `attribution`: the words of the highest mean relevance, which joins MSLM with DecSelfMask.
    Raises `InputError` if the statistics lack what the source needs.
    """
    source, options = settings.mslm.terms, settings.mslm
    if source == "ner":
        return None
    if source == "lexicon" and options.lexicon is not None and options.lexicon in statistics.lexicons:
        return Terms(statistics.lexicons[options.lexicon])
    if source == "tficf" and statistics.general_V is not None:
        words = _top(statistics, statistics.tficf(), options.n_terms)
        runs = collocations(statistics, settings.pmi, longest=3) if statistics.ngrams else []
        return Terms([*words, *(run for run in runs if not words.isdisjoint(run.split(" ")))])
    if source == "attribution" and statistics.relevance_V is not None:
        mean_V = np.nan_to_num(statistics.relevance_V, nan=-np.inf)
        return Terms(_top(statistics, mean_V, max(1, round(options.top_share * len(mean_V)))))
    raise InputError(f"masking.mslm.terms {source} needs {', '.join(sorted(_NEEDS[source]))}, which the run lacks")


def _top(statistics: Statistics, score_V: np.ndarray, n: int) -> set[str]:
    return {statistics.words[v] for v in best(score_V, n).tolist() if score_V[v] > -np.inf}


def mslm(case: Case) -> Hidden:
    """Hide `p_entity` of the term occurrences whole, and every other word with probability `p_base`.

    With `max_ratio`, or the ratio of another arm, both kinds shrink or grow in proportion. A term larger than the rest
    of the budget is passed over, so the amount is exact.
    """
    settings = case.settings.mslm
    terms = allowed(case, tagged(case.note) if settings.terms == "ner" else case.prepared.find(case.note))
    terms = terms[best(case.uniforms(len(terms), stream=1), len(terms))]
    n_chosen = min(len(terms), max(1, int(settings.p_entity * len(terms) + 0.5))) if settings.p_entity else 0
    other_O, n_base = _others(case, terms)
    n_entity = int(terms.size_U[:n_chosen].sum())
    n_hidden = n_entity + n_base
    if case.is_matched:
        n_hidden = case.budget
    elif settings.max_ratio is not None:
        n_hidden = min(n_hidden, int(settings.max_ratio * len(case.pool.eligible_E) + 0.5))
    share = min(n_entity, round(n_hidden * n_entity / max(n_entity + n_base, 1)))
    return _hide(case, terms, other_O, share, n_hidden)


def _others(case: Case, terms: Units) -> tuple[Index, int]:
    """Eligible words outside all terms in the order in which they are drawn, and how many `p_base` draws."""
    other_O = np.flatnonzero(case.pool.eligible_W & ~terms.covered(len(case.note.words_W2)))
    uniform_O = case.uniforms(len(other_O), stream=2)
    drawn = int(np.count_nonzero(uniform_O < case.settings.mslm.p_base))
    return other_O[np.argsort(uniform_O, kind="stable")], drawn


def _hide(case: Case, terms: Units, other_O: Index, n_entity: int, n_hidden: int) -> Hidden:
    """Terms in order up to `n_entity` words, then other words, then, if those run out, words of further terms."""
    chosen, left = terms.fitting(n_entity)
    kind_W = case.visible()
    kind_W[chosen.covered(len(kind_W))] = ENTITY
    base = other_O[: n_hidden - (n_entity - left)]
    kind_W[base] = BASE
    fill_up(case, kind_W, terms, n_hidden - (n_entity - left) - len(base), ENTITY)
    return case.hide(kind_W)
