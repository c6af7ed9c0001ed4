"""One note, many questions: the note is encoded once, and each question runs on its keys and values alone.

Stage a  encodes the notes of a batch (left-padded, so that all end together), with a graph from the lowest layer that
         is read, or without one, and returns keys and values of every block.
Stage b  runs the branches (question and forced label tokens) of many questions as one batch on detached copies of
         those keys and values, and takes the gradient of each target with respect to its own copy.
Stage c  (`gradients.py`) pulls those gradients back through the note's graph to the layers that are read.

Together they are the chain rule, so the result equals separate prompts up to rounding. The note's forward pass is
shared, and only stage c costs a note's length per question. docs/method.md, section 4.6.

The cache has no sliding window that crops: blocks with a window get it from their attention mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from raypipe.attribution import hooks
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.targets import Readout, Values, branches_of
from raypipe.models.prompts import EncodedNote


@dataclass(frozen=True)
class NoteCache:
    """Keys, values and hidden states of a batch of note prefixes (head and note), padded on the left to N tokens."""

    keys_LBHND: list[Tensor]  # [L] of [B, heads, N, head width]
    values_LBHND: list[Tensor]
    hidden_BND: dict[int, Tensor]  # per layer that is read
    pad_B: list[int]  # padding on the left


@dataclass(frozen=True)
class BranchGradients:
    """Gradients of some questions' targets with respect to the note's keys and values."""

    values: Values
    keys_LQHND: list[Tensor]  # from block `lowest` on
    values_LQHND: list[Tensor]
    # gradient x hidden state summed over the branches' own positions at layer `lowest`; 0 without `with_sum`
    branch_sum_Q: Tensor


def encode(decoder: Decoder, notes: Sequence[EncodedNote], layers: Sequence[int]) -> NoteCache:
    """Stage a. With `layers`, keys and values carry a graph back to the lowest of them; without, none."""
    width = max(len(note.prefix_ids) for note in notes)
    pad_B = [width - len(note.prefix_ids) for note in notes]
    rows = [[note.prefix_ids[0]] * pad + list(note.prefix_ids) for note, pad in zip(notes, pad_B, strict=True)]
    cache = DynamicCache()
    with torch.set_grad_enabled(bool(layers)), hooks.cut(decoder.blocks, layers) as hidden:
        # nothing is read here: the last block's MLP is not computed at all
        decoder.states(
            [], [], input_ids=decoder.pad(rows), past_key_values=cache, use_cache=True, **_masked(decoder, pad_B, width)
        )
    keys = [layer.keys for layer in cache.layers]
    values = [layer.values for layer in cache.layers]
    return NoteCache(keys, values, hidden, pad_B)


def _masked(decoder: Decoder, pad_R: Sequence[int], width: int, n_more: int = 0) -> dict[str, Tensor]:
    """Mask and positions for rows with this padding on the left; nothing if no row has any (faster kernels)."""
    if not any(pad_R):
        return {}
    pad_R1 = torch.tensor(pad_R, device=decoder.device)[:, None]
    index_T = torch.arange(width + n_more, device=decoder.device)
    first = width if n_more else 0
    positions_RT = (index_T[first:] - pad_R1).clamp(min=0)
    return {"attention_mask": (index_T >= pad_R1).long(), "position_ids": positions_RT}


def readouts(
    notes: Sequence[EncodedNote], cache: NoteCache, target: str, budget_tokens: int, share: float = 1
) -> Iterator[Readout]:
    """The questions of all notes in chunks that fit the memory. `share`: what a branch needs of it, relative to a copy
    of the note's keys and values."""
    width = cache.keys_LBHND[0].shape[2]
    n_slots = max(len(note.questions) for note in notes)
    most_branches = max((len(branches_of(q)) for note in notes for q in note.questions), default=1)
    # what fills the memory has `width` tokens of every block per branch
    n_per_chunk = max(1, int(4 * budget_tokens / (width * len(notes) * most_branches * share)))
    for start in range(0, n_slots, n_per_chunk):
        chunk = [replace(note, questions=note.questions[start : start + n_per_chunk]) for note in notes]
        yield Readout(chunk, target)


def branch_inputs(decoder: Decoder, readout: Readout, cache: NoteCache) -> dict[str, Tensor]:
    """What the model's body takes for the branches that follow the cached notes."""
    ids_RT = decoder.pad([branch.ids for branch in readout.branches])
    pad_R = [cache.pad_B[branch.note] for branch in readout.branches]
    return {"input_ids": ids_RT, **_masked(decoder, pad_R, cache.keys_LBHND[0].shape[2], ids_RT.shape[1])}


def notes_of_branches(decoder: Decoder, readout: Readout) -> Tensor:
    """The note of each branch, as index [R]."""
    return torch.tensor([branch.note for branch in readout.branches], device=decoder.device)


def run_branches(decoder: Decoder, readout: Readout, cache: NoteCache, lowest: int, with_sum: bool) -> BranchGradients:
    """Stage b. `lowest`: the first block whose keys and values count. `with_sum`: also what the branches' own positions
    contribute, so that a method can check its total."""
    note_R = notes_of_branches(decoder, readout)
    shared = len(cache.pad_B) == 1

    def copies(tensor_BHND: Tensor) -> Tensor:
        # one note: a view that every branch reads; its gradient still has one row per branch
        detached = tensor_BHND.detach()
        return detached.expand(len(note_R), -1, -1, -1) if shared else detached[note_R]

    past = DynamicCache()
    leaves: list[Tensor] = []
    for block, (keys, values) in enumerate(zip(cache.keys_LBHND, cache.values_LBHND, strict=True)):
        layer = DynamicLayer()
        k, v = copies(keys), copies(values)
        if block >= lowest:
            leaves += [k.requires_grad_(), v.requires_grad_()]
        layer.lazy_initialization(k, v)
        layer.keys, layer.values = k, v
        past.layers.append(layer)
    inputs = branch_inputs(decoder, readout, cache)
    with torch.enable_grad(), hooks.cut(decoder.blocks, [lowest] if with_sum else []) as hidden:
        states_PD = decoder.states(readout.rows_P, readout.columns_P, past_key_values=past, use_cache=True, **inputs)
        values_Q = readout.values(decoder, states_PD)
    own = list(hidden.values())
    gradients = list(torch.autograd.grad(values_Q.z_Q.sum(), leaves + own))
    products = [(h.detach().float() * gradients.pop().float()).sum((1, 2)) for h in own]
    sums_R = products[0] if with_sum else torch.zeros(len(note_R), device=decoder.device)
    *gradients, branch_sum_Q = (readout.sum_of_questions(rows_RX) for rows_RX in [*gradients, sums_R])
    return BranchGradients(
        replace(values_Q, z_Q=values_Q.z_Q.detach()),
        gradients[0::2],
        gradients[1::2],
        branch_sum_Q,
    )
