"""Run a decoder over token trees: one note and all its questions in one sequence.

A row's tokens carry a branch number (rows.TRAINING): branch 0 is the trunk (the note), every other branch sees the
trunk and itself, and its positions go on from the trunk's end. The result equals one prompt per branch, at the cost of
one note: training, scoring and the many-task attribution all rest on this. A row that is all trunk is an ordinary
sequence and needs no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from raypipe.errors import InputError, Problem
from raypipe.models import tree_masks
from raypipe.models.families import FAMILIES, too_long
from raypipe.models.swapping import attention_as, forward_as
from raypipe.words import I32

# Attention weights of one block that may be written out (64 MiB in float32).
WRITTEN_OUT = 2**24


@dataclass
class TokenTree:
    """One row while it is put together: the trunk (head and note), then a branch for each question or answer."""

    ids: list[int]
    branch: list[int]

    @classmethod
    def of_trunk(cls, ids: Sequence[int]) -> TokenTree:
        """A row that has no branch yet."""
        return cls(list(ids), [0] * len(ids))

    def add_branch(self, ids: Sequence[int]) -> int:
        """Appends a branch; returns the index of its first token."""
        first = len(self.ids)
        self.branch += [self.branch[-1] + 1] * len(ids)
        self.ids += ids
        return first

    def arrays(self) -> tuple[I32, I32]:
        """input_ids [T] and branch [T], as `collate` takes them."""
        return np.asarray(self.ids, np.int32), np.asarray(self.branch, np.int32)


@dataclass(frozen=True)
class Trees:
    """A right-padded batch of token trees on a device."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    branch_BT: Tensor  # branch of every token; -1 for padding
    is_plain: bool  # no row has a branch: the model's own causal attention is enough
    source_BT: Tensor  # index of the token whose hidden state predicts this one (its predecessor in the tree)
    longest: int  # tokens of the longest prompt: a trunk with one branch


def collate(rows: Sequence[tuple[I32, I32]], pad_id: int, device: torch.device) -> Trees:
    """Rows of (input_ids [T], branch [T]) as one padded batch."""
    width = max(len(ids) for ids, _ in rows)
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    # Padding of plain rows counts on, as transformers itself would: a position that starts again reads as another
    # sequence, and costs a mask. In trees it must not: width is no length there, and positions may end before it.
    is_plain = all(branch_T[-1] == 0 for _, branch_T in rows)
    position = np.tile(np.arange(width) * is_plain, (len(rows), 1))
    source = np.zeros((len(rows), width), dtype=np.int64)
    branch = np.zeros((len(rows), width), dtype=np.int64)
    for row, (ids, branch_T) in enumerate(rows):
        n = len(ids)
        input_ids[row, :n] = ids
        branch[row, :n] = branch_T
        branch[row, n:] = -1  # padding: a branch that nobody is in
        position[row, :n], source[row, :n] = _paths(branch_T)
    return Trees(
        torch.from_numpy(input_ids).to(device),
        torch.from_numpy(position).to(device),
        torch.from_numpy(branch).to(device),
        is_plain,
        torch.from_numpy(source).to(device),
        int(position.max()) + 1,
    )


def _paths(branch_T: I32) -> tuple[I32, I32]:
    """Position and predecessor of every token of one tree. Branch numbers must not decrease."""
    n = len(branch_T)
    index = np.arange(n)
    trunk = int(np.searchsorted(branch_T, 0, side="right"))
    first_of_branch = np.searchsorted(branch_T, branch_T, side="left")
    position = np.where(index < trunk, index, trunk + index - first_of_branch)
    source = np.where(index == first_of_branch, trunk - 1, index - 1)
    return position.astype(np.int32), np.maximum(source, 0).astype(np.int32)


def hidden_states(model: Any, trees: Trees) -> Tensor:
    """Final hidden states [B, T, D] (after the last norm), without computing any logits."""
    hidden_BTD: Tensor = _run(model, trees).last_hidden_state
    return hidden_BTD


def layer_states(model: Any, trees: Trees) -> tuple[Tensor, ...]:
    """Hidden states [B, T, D] of layers 0..L: embeddings, then the output of every block; the last after the norm."""
    states: tuple[Tensor, ...] = _run(model, trees, output_hidden_states=True).hidden_states
    return states


def _run(model: Any, trees: Trees, **more: Any) -> Any:
    """The model's body on the trees. Raises `InputError` where positions would depend on the batch."""
    problem = too_long(model.config, trees.longest)
    if problem is not None:
        raise InputError([Problem("prompt.max_tokens", problem)])
    with attention_as(model, _attention(model, trees)):
        return model.base_model(
            input_ids=trees.input_ids_BT,
            position_ids=trees.position_ids_BT,
            attention_mask=_attention_mask(model, trees),
            use_cache=False,
            **more,
        )


def _attention(model: Any, trees: Trees) -> str:
    """Which of transformers' attention functions runs these trees.

    On a CPU the fused kernel is slow on short rows in bfloat16: two plain products and a softmax between them are four
    times faster there. Long rows, and rows that a checkpointed block computes twice, stay with the model's own.
    """
    own: str = model.config._attn_implementation
    if own == tree_masks.FLEX and trees.is_plain:
        return "sdpa"  # causal attention without a mask: nothing to leave out
    batch, width = trees.input_ids_BT.shape
    is_short = batch * width**2 * model.config.num_attention_heads <= WRITTEN_OUT
    is_bfloat16 = model.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    is_free = own == "sdpa" and FAMILIES[model.config.model_type].takes_attention
    is_free = is_free and not computes_blocks_twice(model)
    return "eager" if is_free and is_short and is_bfloat16 and trees.input_ids_BT.device.type == "cpu" else own


def computes_blocks_twice(model: Any) -> bool:
    """Is activation checkpointing on?"""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _attention_mask(model: Any, trees: Trees) -> Any:
    """What transformers takes as a ready-made mask, for all layers or for each kind of them.

    A config class that declares `layer_types` belongs to a model with a mask for each kind. All others have one mask,
    with the window if there is one.
    """
    if trees.is_plain:
        return None
    is_flex = model.config._attn_implementation == tree_masks.FLEX

    def mask(window: int | None) -> Any:
        rule = tree_masks.sees(trees.branch_BT, trees.position_ids_BT, window)
        shape, device = trees.branch_BT.shape, trees.branch_BT.device
        return tree_masks.blocks(rule, shape, device) if is_flex else tree_masks.dense(rule, shape, model.dtype, device)

    window = getattr(model.config, "sliding_window", None)
    if not hasattr(type(model.config), "layer_types"):
        return mask(window)
    windows = {"full_attention": None, "sliding_attention": window}
    return {kind: mask(windows[kind]) for kind in set(model.config.layer_types)}


@dataclass
class _Body(BaseModelOutputWithPastAndCrossAttentions):
    router_logits: Any = None  # of a mixture of experts


def logits(model: Any, hidden_ND: Tensor, tokens_U: Tensor | None = None) -> Tensor:
    """Logits in float32 of selected hidden states: [N, V], or [N, U] of some tokens.

    By the model's own code with its body replaced by these states, so that scales and soft-caps are its own. For some
    tokens the head is replaced too, by their columns in float32.
    """
    head = model.get_output_embeddings()

    def columns(hidden: Tensor) -> Tensor:
        bias = None if head.bias is None else head.bias[tokens_U].float()
        return linear(hidden.float(), head.weight[tokens_U].float(), bias)

    states = _Body(last_hidden_state=hidden_ND[None])
    with (
        forward_as(model.base_model, lambda *_, **__: states),
        forward_as(head, head.forward if tokens_U is None else columns),
    ):
        one = torch.zeros((1, 1), dtype=torch.long, device=hidden_ND.device)
        out: Tensor = model(input_ids=one, use_cache=False).logits[0].float()
    return out
