"""The weighted loss of a batch of rows: one forward pass, logits only where a token has a weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from raypipe.models import tree
from raypipe.models.loading import multiplies_bfloat16
from raypipe.settings.config import Training
from raypipe.training.examples import Examples
from raypipe.training.schedule import Indices

# Logits that exist at the same time (512 MiB in float32): 4,096 positions of a vocabulary of 32,768.
LOGITS = 2**27


class WeightedLoss(nn.Module):
    """The decoder with its loss: what data-parallel training wraps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, trees: tree.Trees, weight_BT: Tensor) -> Tensor:
        """Sum of w * cross-entropy over the tokens with a weight, nats."""
        row, column = weight_BT.nonzero(as_tuple=True)
        if not len(row):  # nothing to learn here: every parameter still gets its (zero) gradient
            row = column = row.new_zeros(1)
        with _float32_embeddings(self.model):
            hidden = tree.hidden_states(self.model, trees)[row, trees.source_BT[row, column]]
        target, weight = trees.input_ids_BT[row, column], weight_BT[row, column]
        size = positions_at_once(self.model)
        if len(target) <= size:
            return self.of_states(hidden, target, weight)
        if torch.is_grad_enabled():
            head = tuple(self.model.get_output_embeddings().parameters())
            total: Tensor = _InParts.apply(self, size, target, weight, hidden, *head)  # type: ignore[no-untyped-call]
            return total
        parts = _split(size, hidden, target, weight)
        return torch.stack([self.of_states(*part) for part in parts]).sum()

    def of_states(self, hidden_ND: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        """The loss of final hidden states that predict these tokens."""
        return (cross_entropy(tree.logits(self.model, hidden_ND), target_N, reduction="none") * weight_N).sum()


class _InParts(torch.autograd.Function):
    """`WeightedLoss.of_states` of more positions than may have logits at once.

    The gradient is taken while a part's logits exist, so that they are computed once (as in Liger, arXiv 2410.10989)
    and only the gradients of the hidden states, and of the head if it is trained, wait for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, core: WeightedLoss, size: int, target_N: Tensor, weight_N: Tensor, *inputs: Tensor) -> Tensor:
        """`inputs`: hidden states [N, D] and the head's parameters."""
        hidden_ND, head = inputs[0].detach(), inputs[1:]
        needs = ctx.needs_input_grad[4:]
        total = torch.zeros((), device=hidden_ND.device)
        of_hidden: list[Tensor] = []
        of_head: list[Tensor | None] = [None] * len(head)
        for hidden, target, weight in _split(size, hidden_ND, target_N, weight_N):
            with torch.enable_grad():
                states = hidden.requires_grad_()
                loss = core.of_states(states, target, weight)
            trained = [i for i, needed in enumerate(needs[1:]) if needed]
            with torch.autocast(hidden.device.type, enabled=False):
                gradient, *more = torch.autograd.grad(loss, [states, *(head[i] for i in trained)])
            of_hidden.append(gradient)
            for i, part in zip(trained, more, strict=True):
                so_far = of_head[i]
                of_head[i] = part if so_far is None else so_far.add_(part)
            total += loss.detach()
        ctx.gradients = [torch.cat(of_hidden), *of_head]
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients, scaled."""
        scaled = [None if gradient is None else gradient.mul_(outer[0]) for gradient in ctx.gradients]
        ctx.gradients = []
        return (None, None, None, None, *scaled)


def _split(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of equal length in parts of `size`."""
    return zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)


@contextmanager
def _float32_embeddings(model: Any) -> Iterator[None]:
    """Hidden states in float32 from the start, as under autocast, although frozen embeddings are stored in bfloat16."""
    hook = model.get_input_embeddings().register_forward_hook(lambda module, inputs, embedded: embedded.float())
    try:
        yield
    finally:
        hook.remove()


def positions_at_once(model: Any) -> int:
    """Positions whose logits may exist at the same time."""
    return max(1, LOGITS // int(model.get_output_embeddings().weight.shape[0]))


def batch_of(examples: Examples, rows: Indices, pad_id: int, device: torch.device) -> tuple[tree.Trees, Tensor]:
    """Rows as a padded batch and their loss weights [B, T]."""
    parts = [examples.row(int(row)) for row in rows]
    trees = tree.collate([(ids, branch) for ids, _, branch in parts], pad_id, device)
    weight = np.zeros(trees.input_ids_BT.shape, np.float32)
    for index, (_, weight_T, _) in enumerate(parts):
        weight[index, : len(weight_T)] = weight_T
    return trees, torch.from_numpy(weight).to(device)


def in_bfloat16(training: Training, device: torch.device) -> bool:
    """Does a training compute its products in bfloat16? Where a CPU would emulate them, float32 is faster and exact."""
    if training.precision == "float32" or (training.precision == "auto" and device.type == "cpu"):
        return False
    return multiplies_bfloat16(device)


def autocast(training: Training, device: torch.device) -> Any:
    """The context in which a forward pass runs: bfloat16 products, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if in_bfloat16(training, device) else nullcontext()
