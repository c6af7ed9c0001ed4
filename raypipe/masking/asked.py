"""What the arms of a comparison together ask of the corpus: no more than this is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.masking.requirements import needs
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.strategy import IMPORTANCE, LEXICON, NGRAMS, RELEVANCE, TAGS
from raypipe.settings.config import Masking

_LONGEST_TERM = 3  # words of a domain term that is found by counting (masking/mslm.py)


@dataclass(frozen=True)
class Asked:
    """Everything but the corpus itself that its statistics depend on."""

    needs: frozenset[str]  # of masking/strategy.py, less what each note brings along
    longest: int  # words of a run
    phi_patterns: tuple[str, ...]  # of any arm: what they match is not counted
    lexicons: tuple[str, ...]
    delta: float  # of selective masking

    def settings(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "needs": sorted(self.needs)}


def asked(arms: Mapping[str, Masking]) -> Asked:
    """By these arms, which must be free of `check.problems`."""
    of = {name: STRATEGIES[masking.strategy].needs(masking) for name, masking in arms.items()}
    runs = [m.pmi.longest if m.strategy == "pmi" else _LONGEST_TERM for n, m in arms.items() if NGRAMS in of[n]]
    return Asked(
        needs=needs(arms) - {RELEVANCE, TAGS},
        longest=max(runs, default=1),
        phi_patterns=tuple(sorted({pattern for masking in arms.values() for pattern in masking.phi_patterns})),
        lexicons=tuple(sorted({m.mslm.lexicon for n, m in arms.items() if LEXICON in of[n] and m.mslm.lexicon})),
        delta=next((m.selective.delta for n, m in arms.items() if IMPORTANCE in of[n]), 0.0),
    )
