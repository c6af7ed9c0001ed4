"""Which tokens of an encoded note make up a word, without its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.words import word_spans


def token_words(tokenizer: Any, note_ids: Sequence[int]) -> list[list[int]]:
    """Token indices of each word, in order. A token that touches two words belongs to both.

    Each token's text is what it adds to the token before it, so leading spaces survive tokenizers that drop them at the
    start of a text; bytes of an unfinished character count as a letter each.
    """
    pieces = []
    for index, token in enumerate(note_ids):
        before = [note_ids[index - 1]] if index else []
        text = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
        start = len(tokenizer.decode(before, clean_up_tokenization_spaces=False)) if before else 0
        pieces.append(text[start:].replace("\ufffd", "x") or "x")
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    return [
        [t for t in range(len(pieces)) if starts[t] < stop and ends[t] > start]
        for start, stop in word_spans("".join(pieces))
    ]
