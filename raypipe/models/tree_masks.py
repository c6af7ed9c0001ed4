"""Which token of a token tree may look at which: one rule, as a dense mask or as blocks for FlexAttention.

A dense mask has T x T numbers a row and forbids the fastest kernels of a GPU. FlexAttention (arXiv 2412.05496) takes
the rule itself and leaves out every block of tokens in which nobody sees anybody: questions do not see each other, so
of a note with many of them most blocks go. It has no backward pass on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import flex_attention_mask

BLOCK = 128  # tokens: those of FlexAttention's kernels
FLEX = "raypipe_flex"  # under which transformers finds `_flex_attention`

# May the query's token look at the key's, given (row, head, query, key) as indices of shapes that broadcast?
Sees = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def sees(branch_BT: Tensor, position_BT: Tensor, window: int | None) -> Sees:
    """The rule: a token sees the trunk and its own branch, as far as they come before it, and padding sees itself, so
    that no softmax is empty. `window`: nothing as far away as that, by the distance on the path from the note to the
    end of the branch, not in the row."""

    def rule(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_key = branch_BT[row, key]
        seen: Tensor = (query >= key) & ((of_key == 0) | (of_key == branch_BT[row, query]))
        return seen if window is None else seen & (position_BT[row, query] - position_BT[row, key] < window)

    return rule


def dense(rule: Sees, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An additive mask [B, 1, T, T] for rows of `shape` [B, T]: 0, or the lowest number where a token must not look."""
    row_B = torch.arange(shape[0], device=device)[:, None, None]
    index_T = torch.arange(shape[1], device=device)
    sees_BTT = rule(row_B, row_B, index_T[:, None], index_T)
    mask = torch.zeros(sees_BTT.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~sees_BTT, torch.finfo(dtype).min)[:, None]


def blocks(rule: Sees, shape: torch.Size, device: torch.device) -> Any:
    """The same as a `BlockMask`, one for all heads.

    PyTorch's own `create_block_mask` writes the whole mask out, outside of a compiled program; this one, a block of
    queries at a time, so that its memory grows with T and not with T x T.
    """
    from torch.nn.attention.flex_attention import BlockMask  # slow to import, and for GPUs alone

    rows, width = shape
    n = -(-width // BLOCK)
    row_B, key_T = torch.arange(rows, device=device)[:, None, None], torch.arange(width, device=device)
    seen_BQK = torch.zeros((rows, n, n), dtype=torch.int32, device=device)
    for i, query in enumerate(torch.split(key_T, BLOCK)):
        sees_BQT = rule(row_B, row_B, query[:, None], key_T)
        sees_BQT = torch.nn.functional.pad(sees_BQT, (0, n * BLOCK - width))
        seen_BQK[:, i] = sees_BQT.reshape(rows, -1, n, BLOCK).sum((1, 3))
    is_full = seen_BQK == BLOCK**2  # needs no rule
    some, full = (_listed(which) for which in ((seen_BQK > 0) & ~is_full, is_full))
    return BlockMask.from_kv_blocks(*some, *full, BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(width, width))


def _listed(which_BQK: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries sees, [B, 1, Q], and which, those first: [B, 1, Q, K]."""
    order = which_BQK.int().argsort(stable=True, dim=-1, descending=True)
    return which_BQK.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]


def _flex_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """FlexAttention under autocast, which does not know it: rotary positions leave queries and keys in float32 and the
    values in bfloat16, and the kernel takes one dtype."""
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return flex_attention_forward(module, query, key, value, attention_mask, **more)


AttentionInterface.register(FLEX, _flex_attention)
AttentionMaskInterface.register(FLEX, flex_attention_mask)
