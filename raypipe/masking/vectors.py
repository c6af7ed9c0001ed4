"""Vectors of words without context, from the input embeddings of the model that is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raypipe.models.pieces import PieceEncoder, Tokenizer
from raypipe.words import F32


def type_vectors(words: Sequence[str], tokenizer: Tokenizer, embeddings_VD: F32) -> F32:
    """Mean input embedding of each word's tokens, less the vocabulary's mean: [words, D].

    Raw embeddings share a large common direction that makes all pairs look alike, so it is subtracted. The authors of
    Difference-Masking use BERT's pooler output of the word alone.
    """
    centre_D = embeddings_VD.mean(axis=0)
    pieces = PieceEncoder(tokenizer)
    encoded = (pieces.text_ids(" " + word) for word in words)
    rows = [embeddings_VD[ids].mean(axis=0) if ids else centre_D for ids in encoded]
    return (np.stack(rows) - centre_D).astype(np.float32) if rows else np.empty((0, len(centre_D)), np.float32)


def unit(vectors_XD: F32) -> F32:
    """The same directions with length 1; a zero vector stays zero."""
    length_X1 = np.linalg.norm(vectors_XD, axis=-1, keepdims=True)
    return (vectors_XD / np.where(length_X1 > 0, length_X1, 1)).astype(np.float32)
