"""The table of strategies. A new one is a function in a file of this folder, and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from raypipe.masking import chance, collocations, difference, keyword, mslm, relevance
from raypipe.masking.strategy import COUNTS, GENERAL, IMPORTANCE, NGRAMS, RELEVANCE, VECTORS, Strategy
from raypipe.settings.config import Masking

_RANKED = frozenset({"selection", "ratio", "temperature", "hysteresis"})


def _always(what: frozenset[str], settings: Masking) -> frozenset[str]:
    return what


def _needs(*what: str) -> Callable[[Masking], frozenset[str]]:
    return partial(_always, frozenset(what))  # no lambda: a masker is pickled with its strategies


def _selective_needs(settings: Masking) -> frozenset[str]:
    return frozenset({RELEVANCE} if settings.selective.source == "relevance" else {COUNTS, IMPORTANCE})


STRATEGIES: dict[str, Strategy] = {
    "relevance": Strategy(relevance.relevance, reads=_RANKED, needs=_needs(RELEVANCE)),
    "least_relevant": Strategy(relevance.least_relevant, reads=_RANKED, needs=_needs(RELEVANCE)),
    "shuffled_relevance": Strategy(relevance.shuffled_relevance, reads=_RANKED, samples=True, needs=_needs(RELEVANCE)),
    "random_word": Strategy(chance.random_word, samples=True),
    "random_token": Strategy(chance.random_token, samples=True, ignores=frozenset({"max_span_words"})),
    "span": Strategy(chance.span, reads=frozenset({"ratio", "span"}), samples=True),
    "mslm": Strategy(
        mslm.mslm, reads=frozenset({"mslm", "pmi"}), samples=True, needs=mslm.needs, prepare=mslm.prepare_mslm
    ),
    "difference_masking": Strategy(
        difference.difference_masking,
        reads=frozenset({"ratio", "difference"}),
        samples=True,
        needs=_needs(COUNTS, GENERAL, VECTORS),
        prepare=difference.prepare_difference,
    ),
    "pmi": Strategy(
        collocations.pmi,
        reads=frozenset({"ratio", "pmi"}),
        samples=True,
        needs=_needs(COUNTS, NGRAMS),
        prepare=collocations.prepare_pmi,
    ),
    "keyword": Strategy(keyword.keyword, needs=_needs(COUNTS, VECTORS), prepare=keyword.prepare_keyword),
    "selective": Strategy(
        keyword.selective, reads=frozenset({"selective"}), needs=_selective_needs, prepare=keyword.prepare_selective
    ),
    "cpt": Strategy(chance.cpt, reads=frozenset(), refills=True),
    "cpt_packed": Strategy(chance.cpt, reads=frozenset(), refills=True, once=True),
}
