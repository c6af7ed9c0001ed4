"""From relevance to masked examples: which words of a note are hidden, and what the student reads instead.

A strategy is one function from a `Case` to `Hidden` spans and one line here. numpy only: no torch, no Ray.
"""

from __future__ import annotations

from raypipe.masking import chance, continual, relevance
from raypipe.masking.strategy import RELEVANCE, Strategy


def _needs(*what: str) -> frozenset[str]:
    return frozenset(what)


_RANKED = frozenset({"selection", "ratio", "temperature", "hysteresis"})

STRATEGIES: dict[str, Strategy] = {
    "relevance": Strategy(relevance.relevance, _RANKED, needs=lambda _: _needs(RELEVANCE)),
    "least_relevant": Strategy(relevance.least_relevant, _RANKED, needs=lambda _: _needs(RELEVANCE)),
    "shuffled_relevance": Strategy(relevance.shuffled_relevance, _RANKED, True, lambda _: _needs(RELEVANCE)),
    "random_word": Strategy(chance.random_word, samples=True),
    "random_token": Strategy(chance.random_token, samples=True),
    "span": Strategy(chance.span, frozenset({"ratio", "span"}), samples=True),
    "cpt": Strategy(continual.cpt, frozenset(), refills=True),
    "cpt_packed": Strategy(continual.cpt, frozenset(), refills=True, once=True),
}
