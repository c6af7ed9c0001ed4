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
    """The same as a `BlockMask`, one for all heads."""
    from torch.nn.attention.flex_attention import create_block_mask  # slow to import, and for GPUs alone

    rows, width = shape
    return create_block_mask(rule, rows, None, width, width, device=device)


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
