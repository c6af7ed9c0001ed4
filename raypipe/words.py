"""Words of a note, and how token relevance becomes word relevance.

A word is a maximal run of Unicode letters, digits and underscores, found in the raw text: no tokenizer decides what a
word is, so one masking plan serves students with different tokenizers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

import numpy as np
import numpy.typing as npt

WordReduction = Literal["max", "sum", "mean"]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

# \w plus combining marks, so that a letter that has no composed form stays one word with its accent.
_WORD = re.compile(r"[^\W_](?:[\w\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u094f]*)")


def normalise(text: str) -> str:
    """NFC: the one form in which the project counts characters."""
    return unicodedata.normalize("NFC", text)


def word_spans(text: str) -> Ints:
    """Character offsets [W, 2] of the words of `text`, in order."""
    spans = [match.span() for match in _WORD.finditer(text)]
    return np.asarray(spans, dtype=np.int32).reshape(-1, 2)


def relevance_of_words(relevance_XT: Floats, offsets_T2: Ints, words_W2: Ints, how: WordReduction = "max") -> Floats:
    """Reduce relevance over the tokens that touch each word: [..., T] -> [..., W].

    A token belongs to every word that it overlaps by at least one character (a byte-level token may carry the space
    before a word; it still belongs to the word alone, because the space is in no word). Words without a token (cut
    from the prompt) get 0. `max` equals the authors' any-token rule (methods 1.3); `sum` favours long words.
    """
    n_words = len(words_W2)
    flat = relevance_XT.reshape(-1, relevance_XT.shape[-1]).astype(np.float32, copy=False)
    out = np.zeros((flat.shape[0], n_words), dtype=np.float32)
    if n_words and flat.shape[1]:
        # tokens and words are both sorted: the first and one-past-last word that each token overlaps
        first = np.searchsorted(words_W2[:, 1], offsets_T2[:, 0], side="right")
        last = np.searchsorted(words_W2[:, 0], offsets_T2[:, 1], side="left")
        count = np.maximum(last - first, 0)
        token = np.repeat(np.arange(len(offsets_T2)), count)
        word = np.repeat(first, count) + np.arange(len(token)) - np.repeat(np.cumsum(count) - count, count)
        n_tokens_W = np.bincount(word, minlength=n_words)
        for row, values in zip(out, flat, strict=True):
            if how == "max":
                row[:] = np.where(n_tokens_W > 0, -np.inf, 0)
                np.maximum.at(row, word, values[token])
            else:
                row[:] = np.bincount(word, weights=values[token], minlength=n_words)
        if how == "mean":
            out /= np.maximum(n_tokens_W, 1)
    return out.reshape(*relevance_XT.shape[:-1], n_words)
