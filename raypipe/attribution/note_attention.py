"""Attention of questions to a note that is cached once, and what each of the note's tokens contributes to it.

`kv_direct` needs K_i . dz/dK_i and V_i . dz/dV_i of every token i of the note, not the gradients themselves. Summed
over the width of a head they are, with scaled scores s and attention weights a of the question's tokens q,

    K_i . dz/dK_i = sum_q s_qi dz/ds_qi        because s_qi is linear in K_i
    V_i . dz/dV_i = sum_q a_qi dz/da_qi        because the output is linear in V_i

so the backward pass here returns these sums, and dq for the layers below: it forms no gradient of the note's keys and
values, and no copy of them for each question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import sdpa_mask

from raypipe.models.swapping import attention_as

NAME = "raypipe_note"  # under which transformers finds `_attention`


class NoteLayer(DynamicLayer):
    """One block's keys and values [B, heads, N, head width] of the notes, which R branches read.

    `effects`: two zero tensors [R, N], whose "gradients" are the sums over heads of K . dz/dK and V . dz/dV.
    """

    def __init__(self, keys_BHND: Tensor, values_BHND: Tensor, note_R: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys_BHND, values_BHND)
        is_one = len(keys_BHND) == 1  # every branch reads the same note: no copies
        self.keys, self.values = (x.detach() if is_one else x.detach()[note_R] for x in (keys_BHND, values_BHND))
        shape = (len(note_R), keys_BHND.shape[2])
        self.effects = [torch.zeros(shape, device=keys_BHND.device, requires_grad=True) for _ in range(2)]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The branches' own keys and values alone: `_attention` puts the note's before them."""
        return key_states, value_states


@contextmanager
def reading(model: Any, layers: Sequence[NoteLayer]) -> Iterator[None]:
    """Run the model with an attention that reads the notes of these layers, one for each block."""
    AttentionInterface.register(NAME, partial(_attention, layers))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        with attention_as(model, NAME):
            yield
    finally:  # the registry would keep the notes' keys and values alive
        AttentionInterface.register(NAME, partial(_attention, ()))


def _attention(
    layers: Sequence[NoteLayer],
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    layer = layers[module.layer_idx]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out: Tensor = _NoteAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, *layer.effects, layer.keys, layer.values, attention_mask, scale
    )
    return out.transpose(1, 2).contiguous(), None


class _NoteAttention(torch.autograd.Function):
    """Shapes: G queries share a head of keys; S independent products of X rows, where all branches of one note are rows
    of the same product (S = heads, X = branches * G * t), and branches of several notes are not (S = branches * heads).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_RQtD: Tensor,
        key_RHtD: Tensor,
        value_RHtD: Tensor,
        _keys_effect_RN: Tensor,
        _values_effect_RN: Tensor,
        note_keys_BHND: Tensor,
        note_values_BHND: Tensor,
        mask_R1tT: Tensor | None,
        scale: float,
    ) -> Tensor:
        """[R, query heads, t, D]"""
        n_rows, n_heads, n_note = len(query_RQtD), key_RHtD.shape[1], note_keys_BHND.shape[2]
        fold = _Fold(n_rows, n_heads, query_RQtD.shape[1] // n_heads, query_RQtD.shape[2], len(note_keys_BHND) == 1)
        query_RHgD = fold.heads(query_RQtD)
        note = fold.rows(torch.bmm(fold.products(query_RHgD), note_keys_BHND.flatten(0, 1).transpose(1, 2)))
        score = torch.cat([note, query_RHgD @ key_RHtD.transpose(2, 3)], dim=-1).float() * scale
        if mask_R1tT is not None:
            score = score.masked_fill(~fold.mask(mask_R1tT), torch.finfo(torch.float32).min)
        weight = score.softmax(-1)
        low = weight.to(query_RQtD.dtype)
        read = torch.bmm(fold.products(low[..., :n_note]), note_values_BHND.flatten(0, 1))
        out_RHgD = fold.rows(read) + low[..., n_note:] @ value_RHtD
        ctx.save_for_backward(query_RHgD, key_RHtD, value_RHtD, note_keys_BHND, note_values_BHND, score, weight)
        ctx.fold, ctx.scale = fold, scale
        return out_RHgD.reshape(query_RQtD.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """dq, dk and dv of the branches' own tokens, and the two effects [R, N]."""
        query, key, value, note_keys, note_values, score, weight = ctx.saved_tensors
        fold, n_note, dtype = ctx.fold, note_keys.shape[2], query.dtype
        d_out = fold.heads(gradients[0])
        note = fold.rows(torch.bmm(fold.products(d_out), note_values.flatten(0, 1).transpose(1, 2)))
        # a * da, whose sum over all keys is what the softmax takes away
        product = torch.cat([note, d_out @ value.transpose(2, 3)], dim=-1).float() * weight
        d_score = torch.addcmul(product, weight, product.sum(-1, keepdim=True), value=-1)
        values_effect_RN = product[..., :n_note].sum((1, 2))
        keys_effect_RN = (score[..., :n_note] * d_score[..., :n_note]).sum((1, 2))
        low = (d_score * ctx.scale).to(dtype)
        d_query = fold.rows(torch.bmm(fold.products(low[..., :n_note]), note_keys.flatten(0, 1)))
        d_query = d_query + low[..., n_note:] @ key
        d_key = low[..., n_note:].transpose(2, 3) @ query
        d_value = weight[..., n_note:].to(dtype).transpose(2, 3) @ d_out
        d_query_RQtD = d_query.reshape(gradients[0].shape)
        return d_query_RQtD, d_key, d_value, keys_effect_RN, values_effect_RN, None, None, None, None


class _Fold:
    """Between [R, query heads, t, ...], [R, heads, G * t, ...] and the operands of one batched product."""

    def __init__(self, n_rows: int, n_heads: int, n_sharing: int, n_tokens: int, is_one_note: bool) -> None:
        self.n_rows, self.n_heads, self.n_sharing, self.n_tokens = n_rows, n_heads, n_sharing, n_tokens
        self.is_one_note = is_one_note

    def heads(self, x_RQtX: Tensor) -> Tensor:
        """[R, query heads, t, X] -> [R, heads, G * t, X]: queries that share keys are rows of the same product."""
        return x_RQtX.reshape(self.n_rows, self.n_heads, self.n_sharing * self.n_tokens, -1)

    def products(self, x_RHgX: Tensor) -> Tensor:
        """[R, heads, G * t, X] -> [S, rows, X]"""
        if self.is_one_note:
            return x_RHgX.transpose(0, 1).reshape(self.n_heads, -1, x_RHgX.shape[-1])
        return x_RHgX.flatten(0, 1)

    def rows(self, x_SrX: Tensor) -> Tensor:
        """Back from `products`."""
        if self.is_one_note:
            return x_SrX.view(self.n_heads, self.n_rows, -1, x_SrX.shape[-1]).transpose(0, 1)
        return x_SrX.view(self.n_rows, self.n_heads, -1, x_SrX.shape[-1])

    def mask(self, mask_R1tT: Tensor) -> Tensor:
        """[R, 1, t, T] -> [R, 1, G * t, T]"""
        return mask_R1tT.repeat(1, 1, self.n_sharing, 1)
