"""What the strategies of all arms together need to know about the corpus. Nothing beyond this is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.masking.requirements import needs
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.strategy import IMPORTANCE, LEXICON, NGRAMS, RELEVANCE, TAGS
from raypipe.settings.config import Masking

_LONGEST_TERM = 3  # words of a domain term that is a collocation (masking/mslm.py)


@dataclass(frozen=True)
class CorpusNeeds:
    """The settings that the corpus statistics depend on, beside the corpus itself."""

    needs: frozenset[str]  # constants of masking/strategy.py, less those that each note brings along
    longest: int  # words of the longest n-gram that is counted
    phi_patterns: tuple[str, ...]  # of all arms: words that one of them matches are not counted
    lexicons: tuple[str, ...]
    delta: float  # of selective masking: a word matters above this share of its note's largest drop

    def settings(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "needs": sorted(self.needs)}


def corpus_needs(arms: Mapping[str, Masking]) -> CorpusNeeds:
    """The needs of these arms, which must be free of `requirements.problems`."""
    of = {name: STRATEGIES[masking.strategy].needs(masking) for name, masking in arms.items()}
    runs = [m.pmi.longest if m.strategy == "pmi" else _LONGEST_TERM for n, m in arms.items() if NGRAMS in of[n]]
    return CorpusNeeds(
        needs=needs(arms) - {RELEVANCE, TAGS},
        longest=max(runs, default=1),
        phi_patterns=tuple(sorted({pattern for masking in arms.values() for pattern in masking.phi_patterns})),
        lexicons=tuple(sorted({m.mslm.lexicon for n, m in arms.items() if LEXICON in of[n] and m.mslm.lexicon})),
        delta=next((m.selective.delta for n, m in arms.items() if IMPORTANCE in of[n]), 0.0),
    )
