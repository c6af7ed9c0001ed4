"""Collocations masked whole: PMI-Masking (Levine et al., ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raypipe.errors import InputError
from raypipe.masking.case import Case
from raypipe.masking.selection import best
from raypipe.masking.spans import PLAIN, Hidden
from raypipe.masking.statistics import Statistics
from raypipe.masking.terms import Terms
from raypipe.masking.units import Units, allowed, fill_up
from raypipe.settings.config import Masking, Pmi


def pmi_of_ngrams(statistics: Statistics) -> dict[str, float]:
    """PMI of each run of words: min over its proper segmentations s of log [p(run) / product of p(part) over s].

    The minimum considers every way to break the run apart, so one strong pair inside does not promote a longer run
    (Levine et al., equation 3). Probabilities are occurrences / words of the corpus.
    """
    total = math.log(max(statistics.n_words, 1))
    log_p = {word: math.log(n) - total for word, n in zip(statistics.words, statistics.count_V.tolist(), strict=True)}
    log_p |= {gram: math.log(count) - total for gram, count in statistics.ngrams.items()}
    best_split: dict[str, float] = {}
    for gram in sorted(statistics.ngrams, key=lambda gram: gram.count(" ")):
        words = gram.split(" ")
        splits = ((" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words)))
        best_split[gram] = max(
            _whole(left, log_p, best_split) + _whole(right, log_p, best_split) for left, right in splits
        )
    return {gram: log_p[gram] - split for gram, split in best_split.items()}


def _whole(part: str, log_p: Mapping[str, float], best_split: Mapping[str, float]) -> float:
    """The likeliest way to write the part: whole or in pieces."""
    return max(log_p[part], best_split.get(part, -math.inf))


def collocations(statistics: Statistics, settings: Pmi, longest: int | None = None) -> list[str]:
    """The `top_per_length` runs of each length with the highest PMI, of those that occur often enough."""
    scores = pmi_of_ngrams(statistics)
    chosen: list[str] = []
    for n in range(2, (longest or settings.longest) + 1):
        of_length = [g for g in scores if g.count(" ") == n - 1 and statistics.ngrams[g] >= settings.min_count]
        chosen += sorted(of_length, key=lambda gram: (-scores[gram], gram))[: settings.top_per_length]
    return chosen


def prepare_pmi(settings: Masking, statistics: Statistics) -> Terms:
    """The corpus's collocations. Raises `InputError` without counts of word runs."""
    if not statistics.ngrams:
        raise InputError(f"masking.strategy {settings.strategy} needs counts of word runs, and the corpus has none")
    return Terms(collocations(statistics, settings.pmi))


def pmi(case: Case) -> Hidden:
    """Hide collocations whole, and single words, in random order until the budget is met.

    A unit larger than the rest of the budget is passed over. If only such units remain, words of them are hidden one
    by one, so that the ratio is exact.
    """
    runs = allowed(case, case.prepared.find(case.note))
    eligible_E = case.pool.eligible_E
    single = eligible_E[~runs.covered(len(case.note.words_W2))[eligible_E]]
    units = runs.with_words(single)
    return hide_units(case, units[best(case.uniforms(len(units)), len(units))])


def hide_units(case: Case, units: Units) -> Hidden:
    """Hides runs of words in the given order until the budget is met exactly."""
    chosen, left = units.fitting(case.budget)
    kind_W = case.visible()
    kind_W[chosen.covered(len(kind_W))] = PLAIN
    fill_up(case, kind_W, units, left, PLAIN)
    return case.hide(kind_W)
