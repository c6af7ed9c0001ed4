"""Gradient x activation at any set of layers, in one backward pass per question: the engine's core.

One question per note: rows of note and question, one forward and one backward pass (`plain`). Several: the note is
encoded once and shared (`two_stage`, see note_cache.py). Both give the same numbers.

Why it is faster than `captum.attr.LayerGradientXActivation` per note and label: prediction and attribution share one
forward pass; the graph starts at the lowest wanted layer; all layers come from one backward pass; only the label
columns of the head and, in the last block, only the answer rows of the MLP are computed; parameters are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from raypipe.attribution import hooks, note_cache
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import NoteAttribution, Request
from raypipe.attribution.targets import Readout, branches_of
from raypipe.prompts import EncodedNote

Reduction = Literal["sum", "l2"]


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """sum_d h_d * dz/dh_d, or the L2 norm of the same product, per note token, question and kept layer."""
    if is_shared(request.decoder, notes):
        return two_stage(request, notes)
    return plain(request, notes)


def is_shared(decoder: Decoder, notes: Sequence[EncodedNote]) -> bool:
    """Whether these notes are cheaper encoded once: some note has more than one branch, and the model can."""
    return decoder.can_cache and any(n_branches(note) > 1 for note in notes)


def n_branches(note: EncodedNote) -> int:
    """Sequences that follow this note: one per question with single-token labels."""
    return sum(len(branches_of(question)) for question in note.questions)


def reduce_width(hidden_XTD: Tensor, gradient_XTD: Tensor, how: Reduction) -> Tensor:
    """Relevance [..., T] in float32 from hidden states and their gradient."""
    product = hidden_XTD.float() * gradient_XTD.float()
    return product.sum(-1) if how == "sum" else product.norm(dim=-1)


def plain(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """One row per branch: note and question together."""
    decoder, readout = request.decoder, Readout(notes, request.config.target)
    prefixes = [notes[branch.note].prefix_ids for branch in readout.branches]
    ids_RT = decoder.pad([prefix + b.ids for prefix, b in zip(prefixes, readout.branches, strict=True)])
    columns = [column + len(prefixes[row]) for row, column in zip(readout.rows_P, readout.columns_P, strict=True)]
    with torch.enable_grad(), hooks.cut(decoder.blocks, request.layers) as hidden:
        values = readout.values(decoder, decoder.states(readout.rows_P, columns, input_ids=ids_RT))
    kept = [hidden[layer] for layer in request.layers]
    gradients = torch.autograd.grad(values.z_Q.sum(), kept)
    question_R = torch.tensor([branch.question for branch in readout.branches], device=decoder.device)
    rows = torch.tensor([[b.question for b in readout.branches].index(q) for q in range(readout.n_questions)])
    relevance = []
    for h_RTD, g_RTD in zip(kept, gradients, strict=True):
        h, g = h_RTD.detach(), g_RTD
        if len(rows) != len(question_R):  # the note's tokens are the same in all branches of a question
            h = h[rows.to(decoder.device)]
            g = g.new_zeros(h.shape).index_add(0, question_R, g)
        relevance.append(reduce_width(h, g, request.config.reduction))
    relevance_QKT = torch.stack(relevance, dim=1).cpu().numpy()
    chosen, margin = values.chosen_Q2[:, 0].cpu().numpy(), values.margin_Q.cpu().numpy()
    result = []
    for note, parts in zip(notes, readout.by_note(len(notes), chosen, margin, relevance_QKT), strict=True):
        predicted_Q, margin_Q, note_QKT = parts
        result.append(
            NoteAttribution(
                tuple(int(p) for p in predicted_Q), margin_Q, note_QKT[:, :, note.note_start : len(note.prefix_ids)]
            )
        )
    return result


def two_stage(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """Stages a, b and c (note_cache.py). In stage c the notes of the batch are pulled back together, one question slot
    at a time: that batch is what keeps a GPU busy, and nothing of it can be shared."""
    decoder, layers = request.decoder, request.layers
    lowest = min(layers)
    cache = note_cache.encode(decoder, notes, layers)
    outputs = cache.keys_LBHND[lowest:] + cache.values_LBHND[lowest:]
    kept = [cache.hidden_BND[layer] for layer in layers]
    n_questions = [len(note.questions) for note in notes]
    width = kept[0].shape[1]
    relevance = [np.zeros((n, len(layers), width), np.float32) for n in n_questions]
    predicted = [np.zeros(n, np.int64) for n in n_questions]
    margin = [np.zeros(n, np.float32) for n in n_questions]
    parts = note_cache.branch_gradients(
        decoder, notes, cache, lowest, request.config.target, request.config.batch_tokens
    )
    for part in parts:
        slot_of_question = _slots(part.note_of_question, part.slots.start)
        chosen_Q, margin_Q = part.values.chosen_Q2[:, 0].tolist(), part.values.margin_Q.tolist()
        for note, slot, best, value in zip(part.note_of_question, slot_of_question, chosen_Q, margin_Q, strict=True):
            predicted[note][slot], margin[note][slot] = best, value
        for slot in part.slots:
            members = [q for q, s in enumerate(slot_of_question) if s == slot]
            owners = [part.note_of_question[q] for q in members]
            cotangents = [_rows_of_notes(g, members, owners, len(notes)) for g in part.keys_LQHND + part.values_LQHND]
            gradients = torch.autograd.grad(outputs, kept, cotangents, retain_graph=True)
            reduced = [
                reduce_width(h.detach(), g, request.config.reduction) for h, g in zip(kept, gradients, strict=True)
            ]
            relevance_BKN = torch.stack(reduced, dim=1).cpu().numpy()
            for owner in owners:
                relevance[owner][slot] = relevance_BKN[owner]
    return [
        NoteAttribution(
            tuple(int(p) for p in predicted[b]), margin[b], relevance[b][:, :, cache.pad_B[b] + note.note_start :]
        )
        for b, note in enumerate(notes)
    ]


def _slots(note_of_question: Sequence[int], first: int) -> list[int]:
    """Which question of its note each question of a chunk is."""
    seen: dict[int, int] = {}
    slots = []
    for note in note_of_question:
        slots.append(first + seen.get(note, 0))
        seen[note] = seen.get(note, 0) + 1
    return slots


def _rows_of_notes(gradient_QHND: Tensor, members: list[int], owners: list[int], n_notes: int) -> Tensor:
    """One row per note from the rows of one question slot; a note without that question gets zeros."""
    if len(owners) == n_notes:
        return gradient_QHND[members] if len(members) > 1 else gradient_QHND[members[0] : members[0] + 1]
    out = gradient_QHND.new_zeros(n_notes, *gradient_QHND.shape[1:])
    out[owners] = gradient_QHND[members]
    return out
