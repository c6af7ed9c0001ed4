"""Words of a note, and how token relevance becomes word relevance.

A word is a maximal run of Unicode letters, digits, marks and inner underscores, cut from the raw text. No tokenizer
decides what a word is, so one masking plan serves students with different tokenizers. In scripts without spaces, whose
characters are words or syllables (ideographs, kana), every character is a word: a run of them would be a sentence.
docs/method.md, section 3.1.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

WordReduction = Literal["max", "sum", "mean"]

# Arrays by the type of their elements
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]  # positions in another array

# How signed relevance is turned into what ranks words
SIGNS: dict[str, Callable[[F32], F32]] = {
    "abs": np.abs,
    "positive": lambda relevance: np.maximum(relevance, 0),
    "signed": lambda relevance: relevance,
}

# What a character is to a word. Letters (and digits) begin it, all from _MARK on go on with it.
_OTHER, _IDEOGRAPH, _MARK, _UNDERSCORE, _LETTER = range(5)

# Ideographs, kana and their extensions: one word each. First and last code point of each range.
_IDEOGRAPHS = (
    (0x3005, 0x3007),
    (0x3041, 0x3096),
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is to a word: [0x110000].

    Marks are all combining marks (category M) and the two joiners. Without them an Indic vowel sign, or a letter whose
    accent has no composed form, would split its word.
    """
    kinds = np.full(sys.maxunicode + 1, _OTHER, np.uint8)
    for point in (*range(0x20000), *range(0xE0100, 0xE01F0)):  # letters and marks are nowhere else
        character = chr(point)
        if character.isalnum():
            kinds[point] = _LETTER
        elif unicodedata.category(character)[0] == "M":
            kinds[point] = _MARK
    kinds[[ord("\u200c"), ord("\u200d")]] = _MARK
    kinds[ord("_")] = _UNDERSCORE
    for first, last in _IDEOGRAPHS:
        kinds[first : last + 1] = _IDEOGRAPH
    return kinds


def normalise(text: str) -> str:
    """NFC: the one form in which the project counts characters."""
    return unicodedata.normalize("NFC", text)


def word_spans(text: str) -> I32:
    """Character offsets [W, 2] of the words of `text`, in order."""
    kind = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")]
    runs = np.flatnonzero(np.diff(kind >= _MARK, prepend=False, append=False)).reshape(-1, 2)
    spans = _from_first(kind == _LETTER, runs)
    ideographs = np.flatnonzero(kind == _IDEOGRAPH)
    if len(ideographs):  # each is a word, with the marks that follow it
        ends = np.append(np.flatnonzero(kind != _MARK), len(kind))
        ends = ends[np.searchsorted(ends, ideographs + 1)]
        spans = np.concatenate([spans, np.stack([ideographs, ends], axis=1)])
        spans = spans[np.argsort(spans[:, 0])]
    return spans.astype(np.int32)


def _from_first(is_letter: Bools, runs_R2: Index) -> Index:
    """Each run from its first letter on; runs without one are left out."""
    letters = np.append(np.flatnonzero(is_letter), len(is_letter))
    first_R = letters[np.searchsorted(letters, runs_R2[:, 0])]
    return np.stack([first_R, runs_R2[:, 1]], axis=1)[first_R < runs_R2[:, 1]]


def tokens_of_words(offsets_T2: I32, words_W2: I32) -> I32:
    """First token, and one past the last, of each word that any token touches: [words, 2]. Both inputs are sorted."""
    first_W = np.searchsorted(offsets_T2[:, 1], words_W2[:, 0], side="right")
    end_W = np.searchsorted(offsets_T2[:, 0], words_W2[:, 1], side="left")
    return np.stack([first_W, end_W], axis=1)[first_W < end_W].astype(np.int32)


def relevance_of_words(relevance_XT: F32, offsets_T2: I32, words_W2: I32, how: WordReduction = "max") -> F32:
    """Reduce relevance over the tokens that touch each word: [..., T] -> [..., W].

    A token belongs to every word that it overlaps by at least one character; the space before a word, which a
    byte-level token may carry, is in no word. Words without a token (they were cut from the prompt) get 0. `max` makes
    a word as relevant as its most relevant token, as in DecSelfMask's code; `sum` favours words of many tokens.
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
