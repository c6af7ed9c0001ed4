"""The direct effect of a cached note on an answer: gradient x key and value, without a backward pass through the note.

R_i = sum over the blocks from `layer` on and over heads of  K_i . dz/dK_i + V_i . dz/dV_i  for note token i, where K, V
are what the question's tokens read of the note. This method is ours: docs/method.md, section 4.7. `layer: 0` counts all
blocks; the share of one block is the difference of two layers. `kv_direct_value` has the second term only.

The note is encoded once without a graph, and only the short questions run forward and backward. The quantity differs
from gradient x activation: a token is credited for what its own keys and values say, not for what later tokens of the
note have read from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from raypipe.attribution import note_cache
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import Method, NoteAttribution, QuestionAttribution, Request
from raypipe.attribution.note_attention import NoteLayer, reading
from raypipe.attribution.note_cache import NoteCache
from raypipe.attribution.targets import Readout, Values, branches_of
from raypipe.models.prompts import EncodedNote


def attribute(request: Request, notes: Sequence[EncodedNote], with_keys: bool) -> list[NoteAttribution]:
    """All layers at once. `with_keys`: both terms, else the value term alone."""
    decoder, layers = request.decoder, request.layers
    lowest = min(layers)
    cache = note_cache.encode(decoder, notes, ())
    is_direct = decoder.loaded.family.takes_attention
    effects, share = (read_effects, share_of_weights(notes)) if is_direct else (gradient_effects, 1.0)
    collected: list[list[QuestionAttribution]] = [[] for _ in notes]
    for readout in note_cache.readouts(notes, cache, request.config.target, request.batch_tokens, share):
        values, keys_LQN, values_LQN = effects(decoder, readout, cache, lowest)
        per_block_LQN = keys_LQN + values_LQN if with_keys else values_LQN
        from_block_up_QLN = per_block_LQN.flip(0).cumsum(0).flip(0).transpose(0, 1)
        relevance_QKN = from_block_up_QLN[:, [layer - lowest for layer in layers]].cpu()
        chosen, margin = values.chosen_Q2[:, 0].tolist(), values.margin_Q.tolist()
        for owner, best, value, relevance_KN in zip(
            readout.note_of_question, chosen, margin, relevance_QKN, strict=True
        ):
            collected[owner].append(QuestionAttribution(best, value, relevance_KN, math.nan))
    return [
        NoteAttribution.of_questions(questions, pad + note.note_start)
        for questions, pad, note in zip(collected, cache.pad_B, notes, strict=True)
    ]


def share_of_weights(notes: Sequence[EncodedNote]) -> float:
    """Memory of a branch's attention weights, relative to a copy of the note's keys and values: tokens of the branch
    to the width of a head (64 to 256, of which the smallest counts)."""
    longest = max(len(ids) for note in notes for question in note.questions for ids in branches_of(question))
    return min(1.0, max(longest, 16) / 64)


# Values of a chunk of questions, and the effects [L, Q, N] of the note's keys and values, from block `lowest` on.
Effects = tuple[Values, Tensor, Tensor]


def read_effects(decoder: Decoder, readout: Readout, cache: NoteCache, lowest: int) -> Effects:
    """By an attention whose backward pass returns the effects themselves (note_attention.py)."""
    note_R = note_cache.notes_of_branches(decoder, readout)
    layers = [NoteLayer(k, v, note_R) for k, v in zip(cache.keys_LBHND, cache.values_LBHND, strict=True)]
    past = DynamicCache()
    past.layers += layers
    with torch.enable_grad(), reading(decoder.model, layers):
        inputs = note_cache.branch_inputs(decoder, readout, cache)
        states_PD = decoder.states(readout.rows_P, readout.columns_P, past_key_values=past, use_cache=True, **inputs)
        values = readout.values(decoder, states_PD)
    leaves = [leaf for layer in layers[lowest:] for leaf in layer.effects]
    effects = [readout.sum_of_questions(x_RN) for x_RN in torch.autograd.grad(values.z_Q.sum(), leaves)]
    return values, torch.stack(effects[0::2]), torch.stack(effects[1::2])


def gradient_effects(decoder: Decoder, readout: Readout, cache: NoteCache, lowest: int) -> Effects:
    """From the gradients of copies of the note's keys and values, for families whose attention cannot be replaced."""
    part = note_cache.run_branches(decoder, readout, cache, lowest, with_sum=False)
    owner_Q = torch.tensor(readout.note_of_question, device=decoder.device)

    def effects(cached_LBHND: Sequence[Tensor], gradient_LQHND: Sequence[Tensor]) -> Tensor:
        pairs = zip(cached_LBHND[lowest:], gradient_LQHND, strict=True)
        return torch.stack([(x[owner_Q].float() * g.float()).sum(dim=(1, 3)) for x, g in pairs])

    keys_LQN, values_LQN = effects(cache.keys_LBHND, part.keys_LQHND), effects(cache.values_LBHND, part.values_LQHND)
    return part.values, keys_LQN, values_LQN


KV_DIRECT = Method(
    attribute=lambda request, notes: attribute(request, notes, with_keys=True),
    reads=lambda _: "mixing",
    needs_cache=True,
)
KV_DIRECT_VALUE = Method(
    attribute=lambda request, notes: attribute(request, notes, with_keys=False),
    reads=lambda _: "mixing",
    needs_cache=True,
)
