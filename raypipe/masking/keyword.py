"""Strategies that hide words by what they are: keywords of the note, and words that decided labelled notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.errors import InputError
from raypipe.masking.case import Case
from raypipe.masking.selection import best
from raypipe.masking.spans import NOTHING, Hidden
from raypipe.masking.statistics import Statistics
from raypipe.masking.vectors import unit
from raypipe.settings.config import Masking
from raypipe.words import F32, I64


@dataclass(frozen=True)
class WordTable:
    """A value or vector for each word of the corpus; the last row is for words outside the table."""

    statistics: Statistics
    values: F32

    def types(self, case: Case) -> I64:
        """Row of each eligible word of the note; -1, the last row, for words outside the table."""
        return self.statistics.lookup(case.note.words)[case.pool.eligible_E]


def prepare_keyword(settings: Masking, statistics: Statistics) -> WordTable:
    """Unit vectors of the corpus's words. Raises `InputError` without vectors, or if no word is frequent enough."""
    if statistics.vectors_VD is None:
        raise InputError("masking.strategy keyword needs word vectors")
    if not len(statistics.vectors_VD):
        raise InputError("masking.strategy keyword: no word is in statistics.min_notes notes; lower it")
    unit_VD = unit(statistics.vectors_VD)
    return WordTable(statistics, np.concatenate((unit_VD, np.zeros_like(unit_VD[:1]))))


def keyword(case: Case) -> Hidden:
    """Hide the words most similar to the note as a whole (Golchin et al. 2023, after KeyBERT).

    The note's vector is the mean over its distinct eligible words of the student's input embeddings. The paper uses a
    sentence encoder; this way no model runs per note.
    """
    table: WordTable = case.prepared
    type_E = table.types(case)
    note_D = table.values[np.flatnonzero(np.bincount(type_E % len(table.values)))].mean(axis=0)
    score_E = table.values[type_E] @ note_D
    score_E[type_E < 0] = -np.inf
    return case.hide_eligible(best(score_E, case.budget))


def prepare_selective(settings: Masking, statistics: Statistics) -> WordTable | None:
    """For each word, the share of its occurrences in labelled notes that mattered. Raises `InputError` without it."""
    if settings.selective.source == "relevance":
        return None
    if statistics.important_V is None:
        raise InputError("masking.selective.source tagger needs importance: occlusion relevance on labelled notes")
    return WordTable(statistics, np.append(np.nan_to_num(statistics.important_V), 0).astype(np.float32))


def selective(case: Case) -> Hidden:
    """Hide words whose removal costs the task more than `delta` of the note's largest drop (Gu et al. 2020).

    The paper adds words to a prefix until the confidence is back; we remove one word at a time (the method `occlusion`
    with sign `positive`). Source `tagger`, as in the paper: words that matter in the labelled notes are hidden in all
    notes; the paper's tagger is a network that sees context, ours a table of word types. Source `relevance`: the run's
    own occlusion relevance of each note. With a matched ratio, the words with the largest drop (or share) are hidden.
    """
    settings = case.settings.selective
    if settings.source == "relevance" and case.relevance_W is None:
        return NOTHING
    is_table = settings.source == "tagger"
    score_E = case.prepared.values[case.prepared.types(case)] if is_table else case.relevance_W[case.pool.eligible_E]  # type: ignore[index]
    if case.is_matched:
        return case.hide_eligible(best(score_E, case.budget))
    is_over_E = score_E >= settings.min_share if is_table else score_E > settings.delta
    return case.hide_eligible(np.flatnonzero(is_over_E))
