"""Notes and engines that the attribution tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from raypipe.attribution import AttributionEngine
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import NoteAttribution
from raypipe.errors import Code
from raypipe.models.prompts import EncodedNote, Question
from raypipe.settings import config
from raypipe.words import F32, tokens_of_words, word_spans
from tests.tiny_models import TEXTS, tiny_loaded, tiny_tokenizer

# no beginning of an answer is the beginning of another: the labels of `multi` have one to three tokens
LABELS = {"single": (("a",), ("b",), ("c",)), "multi": (("a",), ("b", "c"), ("c", "d", "e"))}


def notes_of(n_notes: int, n_questions: int, labels: str = "single") -> list[EncodedNote]:
    """Real sentences of different lengths, each with the same questions."""
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    options = tuple(tuple(vocabulary[piece] for piece in label) for label in LABELS[labels])
    words = ("dispnea", "dolore", "febbre alta", "tosse", "sincope", "trauma")
    questions = tuple(
        Question(f"t{q}", tuple(tokenizer(f"\n{words[q % 6]}:")["input_ids"]), options) for q in range(n_questions)
    )
    head = (tokenizer.bos_token_id, *tokenizer("Nota")["input_ids"])
    notes = []
    for index in range(n_notes):
        text = " ".join(TEXTS[index % 7].split()[: 5 + index])
        encoded = tokenizer(text, return_offsets_mapping=True)
        offsets = np.asarray(encoded["offset_mapping"], np.int32)
        words, ids = tokens_of_words(offsets, word_spans(text)), (*head, *encoded["input_ids"])
        notes.append(EncodedNote(f"n{index}", ids, len(head), offsets, 0, questions, words))
    return notes


def engine_of(family: str = "llama", dtype: torch.dtype = torch.float32, **settings: Any) -> AttributionEngine:
    """An engine on the tiny model of a family. Sums over the width, as captum does, if not told otherwise."""
    loaded = tiny_loaded(family)
    loaded.model.to(dtype)
    idf_V = np.linspace(0, 1, len(loaded.tokenizer), dtype=np.float32)  # any will do
    return AttributionEngine(loaded, config.Attribution(**{"reduction": "sum", **settings}), idf_V=idf_V)


def done(results: list[NoteAttribution | Code]) -> list[NoteAttribution]:
    """The results, none of which may be a code."""
    assert not [r for r in results if isinstance(r, Code)], results
    return [r for r in results if isinstance(r, NoteAttribution)]


def worst_error(found: F32, expected: F32) -> float:
    """Largest difference, relative to the largest value of each map; absolute where a map is all zero (a note that is
    beyond the attention window of all blocks that are left)."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    return float((np.abs(found - expected) / np.where(scale > 0, scale, 1)).max())


def top_overlap(found: F32, expected: F32, share: float = 0.2) -> float:
    """Mean share of the top tokens by absolute value that two maps have in common."""
    k = max(1, round(share * found.shape[-1]))
    pairs = zip(*(np.argsort(-np.abs(x), axis=-1)[..., :k].reshape(-1, k) for x in (found, expected)), strict=True)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))


def decoder_of(family: str = "llama") -> Decoder:
    """An instrumented tiny model."""
    return Decoder(tiny_loaded(family))
