"""Strategies that know nothing about the task: uniform words, pieces of words, SpanBERT's spans, and nothing hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raypipe.masking.case import Case, Pool
from raypipe.masking.selection import best
from raypipe.masking.spans import NOTHING, PLAIN, VISIBLE, Hidden
from raypipe.words import I32, Index

_PIECE = 4  # characters: about what a sub-word token of a clinical word holds


def random_word(case: Case) -> Hidden:
    """Hide uniformly drawn eligible words (the usual control)."""
    return case.hide_eligible(best(case.uniforms(len(case.pool.eligible_E)), case.budget))


def random_token(case: Case) -> Hidden:
    """Hide uniformly drawn pieces of eligible words (BERT's sub-word masking).

    A plan knows no tokenizer, so pieces of four characters stand for tokens. The budget is the same share of the
    pieces as it would be of the words; `n_masked` converts pieces back into words of mean length.
    """
    pieces_P2, word_P = _pieces(case.note.words_W2, case.pool.eligible_E)
    n_pieces, n_words = len(pieces_P2), len(case.pool.eligible_E)
    n_hidden = int(case.budget * n_pieces / n_words + 0.5)
    chosen = np.sort(best(case.uniforms(n_pieces), n_hidden))
    new = np.ones(len(chosen), dtype=np.bool_)  # pieces that follow one another within a word are one span
    new[1:] = (np.diff(chosen) > 1) | (np.diff(word_P[chosen]) > 0)
    start_S, end_S = pieces_P2[chosen[new], 0], pieces_P2[chosen[np.append(new[1:], True)], 1]
    n_masked = int(n_hidden * n_words / n_pieces + 0.5)
    return Hidden(start_S, end_S, np.full(len(start_S), PLAIN, dtype=np.int8), n_masked)


def _pieces(words_W2: I32, eligible_E: Index) -> tuple[I32, Index]:
    """Character bounds [P, 2] of the pieces of the eligible words, and the word of each."""
    start_E, end_E = words_W2[eligible_E].T
    n_E = -(-(end_E - start_E) // _PIECE)
    word_P = np.repeat(np.arange(len(eligible_E)), n_E)
    number_P = np.arange(len(word_P)) - (np.cumsum(n_E) - n_E)[word_P]
    pieces_P2 = np.empty((len(word_P), 2), dtype=np.int32)
    pieces_P2[:, 0] = start_E[word_P] + _PIECE * number_P
    np.minimum(pieces_P2[:, 0] + _PIECE, end_E[word_P], out=pieces_P2[:, 1])
    return pieces_P2, word_P


def span(case: Case) -> Hidden:
    """Hide spans of geometric length that begin at uniform places (SpanBERT, Joshi et al. 2020).

    Lengths follow the geometric distribution cut off at `span.longest`, counted in words. Unlike SpanBERT's,
    spans stop at protected words and never begin or end with a stop-word; the last one is cut to meet the budget.
    """
    eligible_E, settings = case.pool.eligible_E, case.settings.span
    uniform = case.uniforms(2 * len(eligible_E))
    share = 1 - (1 - settings.p) ** settings.longest  # of the untruncated distribution
    length_E = np.ceil(np.log1p(-share * uniform[1::2]) / np.log1p(-min(settings.p, 1 - 1e-9))).astype(int)
    order = np.argsort(uniform[::2], kind="stable")
    kinds, left = [VISIBLE] * len(case.note.words_W2), case.budget
    for first, length in zip(eligible_E[order].tolist(), np.clip(length_E, 1, settings.longest).tolist(), strict=True):
        if not left:
            break
        if kinds[first] == VISIBLE:
            left -= _hide_run(case.pool, kinds, first, length, left)
    return case.hide(np.array(kinds, dtype=np.int8))


def _hide_run(pool: Pool, kinds: list[int], first: int, length: int, left: int) -> int:
    """Hide up to `length` words from `first` on, at most `left` of them eligible. Returns how many of those."""
    last, taken = first, 0
    for word in range(first, min(first + length, len(kinds))):
        if kinds[word] != VISIBLE or taken == left or (word > first and pool.is_barred(word)):
            break
        if pool.eligible[word]:
            taken += 1
            last = word
        elif not pool.inner[word]:
            break
    kinds[first : last + 1] = [PLAIN] * (last + 1 - first)
    return taken


def cpt(case: Case) -> Hidden:
    """Continual pretraining: the sequences of the arm that it matches, unmasked, as in DecSelfMask's code.

    So the two differ in masking alone. The spans of that arm stay in the plan, because they say which part of the note
    each example shows; `n_masked` is 0.
    """
    return NOTHING if case.reference is None else replace(case.reference, n_masked=0)
