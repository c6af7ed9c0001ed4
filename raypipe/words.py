"""Words of a note, and how token relevance becomes word relevance.

A word is a maximal run of Unicode letters, digits, marks and inner underscores, cut from the raw text. No tokenizer
decides what a word is, so one masking plan serves students with different tokenizers. In scripts without spaces, whose
characters are words or syllables (ideographs, kana), every character is a word: a run of them would be a sentence.
docs/method.md, section 3.1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
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

# Ideographs, kana and their extensions: one word each.
_CJK = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9d\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)


def _marks() -> str:
    """Every combining mark (category M) and the two joiners, for a character class: `re` has no class for them.

    Without them an Indic vowel sign, or a letter whose accent has no composed form, would split its word.
    """
    planes = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))  # marks exist nowhere else
    return "\u200c\u200d" + "".join(chr(point) for point in planes if unicodedata.category(chr(point))[0] == "M")


_ANY_SCRIPT = re.compile(rf"[{_CJK}][{(_M := _marks())}]*|[^\W_{_CJK}][^\W{_CJK}]*(?:[{_M}]+[^\W{_CJK}]*)*")
_LATIN = re.compile(r"[^\W_]\w*")  # the same words, five times as fast, where no other script and no mark occurs
_NOT_LATIN = re.compile(r"[\u0300-\u200d\u2070-\U0010ffff]")


def normalise(text: str) -> str:
    """NFC: the one form in which the project counts characters."""
    return unicodedata.normalize("NFC", text)


def word_spans(text: str) -> I32:
    """Character offsets [W, 2] of the words of `text`, in order."""
    pattern = _ANY_SCRIPT if _NOT_LATIN.search(text) else _LATIN
    spans = [match.span() for match in pattern.finditer(text)]
    return np.asarray(spans, dtype=np.int32).reshape(-1, 2)


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
