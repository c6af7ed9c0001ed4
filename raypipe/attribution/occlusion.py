"""Occlusion: delete words and measure what the target loses. One forward pass per window and question.

Zeiler & Fergus 2014 (1311.2901), section 4.2, for text as in Li et al. 2016 (1612.08220, "erasure"): R = z(note) -
z(note without the window) for each token of a window of `window` words; tokens outside words (punctuation) get 0.
The method has no layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.scores import values_of
from raypipe.models.prompts import EncodedNote


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """One note after the other: each becomes a batch of its own variants."""
    return [_one(request, note) for note in notes]


def _one(request: Request, note: EncodedNote) -> NoteAttribution:
    ids = note.prefix_ids[note.note_start :]
    words, size = note.tokens_W2, request.config.window
    groups = [words[i : i + size].tolist() for i in range(0, len(words), size)]
    windows = [sorted({token for first, end in group for token in range(first, end)}) for group in groups]
    variants = [without(note, window) for window in windows]
    target, budget = request.config.target, request.batch_tokens
    whole = values_of(request.decoder, [note], target, budget)[0]
    chosen = [whole.chosen_Q2] * len(variants)
    relevance_QKN = np.zeros((len(note.questions), 1, len(ids)), np.float32)
    for window, rest in zip(windows, values_of(request.decoder, variants, target, budget, chosen), strict=True):
        relevance_QKN[:, 0, window] = (whole.z_Q - rest.z_Q)[:, None]
    return NoteAttribution.of_values(whole, relevance_QKN)


def without(note: EncodedNote, tokens: Sequence[int]) -> EncodedNote:
    """The note without some of its tokens (indices into the note)."""
    removed = {note.note_start + t for t in tokens}
    remaining = np.setdiff1d(np.arange(len(note.offsets_N2)), np.asarray(tokens, dtype=np.int64))
    ids = tuple(token for index, token in enumerate(note.prefix_ids) if index not in removed)
    return replace(note, prefix_ids=ids, offsets_N2=note.offsets_N2[remaining])


OCCLUSION = Method(attribute=attribute, reads=lambda _: "none", settings=frozenset({"window"}))
