"""What an entry in the table of strategies (strategies.py) says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from raypipe.masking.case import Case
from raypipe.masking.spans import Hidden
from raypipe.masking.statistics import Statistics
from raypipe.settings.config import Masking

# What the corpus must provide before a strategy can choose (`requirements.needs`).
RELEVANCE, COUNTS, NGRAMS, GENERAL, VECTORS, TAGS, LEXICON, TYPE_RELEVANCE, IMPORTANCE = (
    "relevance",  # of words, from `attribute`
    "counts",  # words and document frequencies of the corpus
    "ngrams",  # the same of runs of words
    "general",  # word counts of general language
    "vectors",  # one vector per word
    "tags",  # BIO tags in the input
    "lexicon",  # domain terms from a file
    "type_relevance",  # mean stored relevance of each word over the corpus
    "importance",  # how often deleting each word mattered in the labelled notes
)

# Keys that strategies read unless they say otherwise.
COMMON = frozenset(
    {"profile", "strategy", "match_ratio_to", "seed", "stop_words", "phi_patterns", "max_span_words", "max_spans"}
    | {"format", "condition", "instruction", "sentinels", "prompt_loss"}
)


def _nothing(settings: Masking) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True)
class Strategy:
    """One way to choose what is hidden."""

    hide: Callable[[Case], Hidden]
    _: KW_ONLY
    reads: frozenset[str] = frozenset({"ratio"})  # keys of config.Masking beside COMMON
    samples: bool = False  # another draw hides other words; if `selection` is read, that decides, too
    needs: Callable[[Masking], frozenset[str]] = _nothing
    prepare: Callable[[Masking, Statistics], Any] | None = None  # once per arm, from the corpus statistics
    refills: bool = False  # hides nothing: trains on the sequences of the arm that it matches, unmasked
    once: bool = False  # one plan per note, whatever the tasks
    ignores: frozenset[str] = frozenset()  # keys of COMMON that it does not read
