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

from raypipe.attribution import note_cache
from raypipe.attribution.method import Method, NoteAttribution, QuestionAttribution, Request
from raypipe.models.prompts import EncodedNote


def direct_effect(cached_HND: Tensor, gradient_QHND: Tensor) -> Tensor:
    """The product summed over heads and their width, [Q, N] in float32."""
    return (cached_HND.float() * gradient_QHND.float()).sum(dim=(1, 3))


def attribute(request: Request, notes: Sequence[EncodedNote], with_keys: bool) -> list[NoteAttribution]:
    """All layers at once. `with_keys`: both terms, else the value term alone."""
    decoder, layers = request.decoder, request.layers
    lowest = min(layers)
    cache = note_cache.encode(decoder, notes, ())
    collected: list[list[QuestionAttribution]] = [[] for _ in notes]
    for part in note_cache.branch_gradients(
        decoder, notes, cache, lowest, request.config.target, request.batch_tokens, with_sum=False
    ):
        owner_Q = torch.tensor(part.note_of_question, device=decoder.device)
        blocks = range(lowest, decoder.depth)
        per_block = [direct_effect(cache.values_LBHND[b][owner_Q], part.values_LQHND[b - lowest]) for b in blocks]
        if with_keys:
            keys = (direct_effect(cache.keys_LBHND[b][owner_Q], part.keys_LQHND[b - lowest]) for b in blocks)
            per_block = [value + key for value, key in zip(per_block, keys, strict=True)]
        from_block_up_QLN = torch.stack(per_block, dim=1).flip(1).cumsum(1).flip(1)
        relevance_QKN = from_block_up_QLN[:, [layer - lowest for layer in layers]].cpu()
        chosen, margin = part.values.chosen_Q2[:, 0].tolist(), part.values.margin_Q.tolist()
        for owner, best, value, relevance_KN in zip(part.note_of_question, chosen, margin, relevance_QKN, strict=True):
            collected[owner].append(QuestionAttribution(best, value, relevance_KN, math.nan))
    return [
        NoteAttribution.of_questions(questions, slice(pad + note.note_start, None))
        for questions, pad, note in zip(collected, cache.pad_B, notes, strict=True)
    ]


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
