"""Gradient x activation at any set of layers, in one backward pass per question: the engine's core.

One question per note: rows of note and question, one forward and one backward pass (`plain`). Several: the note is
encoded once and shared (`two_stage`, see note_cache.py). Both give the same numbers.

Why it is faster than `captum.attr.LayerGradientXActivation` per note and label: prediction and attribution share one
forward pass; the graph starts at the lowest layer that is read; all layers come from one backward pass; only the label
columns of the head and, in the last block, only the answer rows of the MLP are computed; parameters are frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from raypipe.attribution import hooks, note_cache
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import NoteAttribution, QuestionAttribution, Request
from raypipe.attribution.padded import Rows
from raypipe.attribution.targets import branches_of
from raypipe.models.prompts import EncodedNote

Reduction = Literal["sum", "l2"]


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """sum_d h_d * dz/dh_d, or the L2 norm of the same product, per note token, question and layer."""
    if is_shared(request.decoder, notes):
        return two_stage(request, notes)
    return plain(request, notes)


def is_shared(decoder: Decoder, notes: Sequence[EncodedNote]) -> bool:
    """Whether to encode these notes once for all questions: some has several branches, and the model can cache."""
    return any(len(note.questions) > 1 or n_branches(note) > 1 for note in notes) and decoder.can_cache


def n_branches(note: EncodedNote) -> int:
    """Sequences that follow this note: one per question with single-token labels."""
    return sum(len(branches_of(question)) for question in note.questions)


def reduce_width(hidden_XTD: Tensor, gradient_XTD: Tensor, how: Reduction) -> Tensor:
    """Relevance [..., T] in float32 from hidden states and their gradient."""
    product = hidden_XTD.float() * gradient_XTD.float()
    return product.sum(-1) if how == "sum" else product.norm(dim=-1)


def plain(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """One row per branch: note and question together. `error_Q`: relative error of the sum over all positions."""
    decoder, how = request.decoder, request.config.norm
    rows = Rows(decoder, notes, request.config.target)
    with torch.enable_grad(), hooks.cut(decoder.blocks, request.layers) as hidden:
        values = rows.values()
    hidden_states = [hidden[layer] for layer in request.layers]
    gradients = torch.autograd.grad(values.z_Q.sum(), hidden_states)
    hidden_states = [h.detach() for h in hidden_states]
    sum_Q = rows.readout.sum_of_questions(reduce_width(hidden_states[0], gradients[0], "sum").sum(-1))
    relevance = [
        reduce_width(rows.one_of_questions(h), rows.readout.sum_of_questions(g), how)
        for h, g in zip(hidden_states, gradients, strict=True)
    ]
    z_Q = values.z_Q.detach()
    return rows.results(values, torch.stack(relevance, dim=1), (sum_Q - z_Q).abs() / z_Q.abs())


def two_stage(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """Stages a, b and c (note_cache.py).

    Stage c takes the first question of every note of the batch together, then the second, and so on: it can share
    nothing between questions, and the batch keeps a GPU busy.
    """
    decoder, layers = request.decoder, request.layers
    lowest = min(layers)
    cache = note_cache.encode(decoder, notes, layers)
    outputs = cache.keys_LBHND[lowest:] + cache.values_LBHND[lowest:]
    hidden_states = [cache.hidden_BND[layer] for layer in layers]
    collected: list[list[QuestionAttribution]] = [[] for _ in notes]
    for readout in note_cache.readouts(notes, cache, request.config.target, request.batch_tokens):
        part = note_cache.run_branches(decoder, readout, cache, lowest, with_sum=True)
        chosen, margin = part.values.chosen_Q2[:, 0].tolist(), part.values.margin_Q.tolist()
        for members in _slots(readout.note_of_question):
            owners = [readout.note_of_question[q] for q in members]
            cotangents = [_rows_of_notes(g, members, owners, len(notes)) for g in part.keys_LQHND + part.values_LQHND]
            gradients = torch.autograd.grad(outputs, hidden_states, cotangents, retain_graph=True)
            relevance_BKN = torch.stack(
                [
                    reduce_width(h.detach(), g, request.config.norm)
                    for h, g in zip(hidden_states, gradients, strict=True)
                ],
                dim=1,
            )
            prefix_sum_B = reduce_width(hidden_states[0].detach(), gradients[0], "sum").sum(-1)
            z, total = part.values.z_Q[members], prefix_sum_B[owners] + part.branch_sum_Q[members]
            error = ((total - z).abs() / z.abs()).tolist()
            for question, owner, left in zip(members, owners, error, strict=True):
                relevance_KN = relevance_BKN[owner].cpu()
                collected[owner].append(QuestionAttribution(chosen[question], margin[question], relevance_KN, left))
    return [
        NoteAttribution.of_questions(questions, pad + note.note_start)
        for questions, pad, note in zip(collected, cache.pad_B, notes, strict=True)
    ]


def _slots(note_of_question: Sequence[int]) -> list[list[int]]:
    """The questions of a chunk by their place in their note: the first of every note, the second, ..."""
    place: Counter[int] = Counter()
    slots: dict[int, list[int]] = {}
    for question, note in enumerate(note_of_question):
        slots.setdefault(place[note], []).append(question)
        place[note] += 1
    return list(slots.values())


def _rows_of_notes(gradient_QHND: Tensor, members: list[int], owners: list[int], n_notes: int) -> Tensor:
    """One row per note from the rows of one question slot; a note without that question gets zeros."""
    if len(owners) == n_notes:
        return gradient_QHND[members]
    out = gradient_QHND.new_zeros(n_notes, *gradient_QHND.shape[1:])
    out[owners] = gradient_QHND[members]
    return out
