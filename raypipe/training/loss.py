"""The weighted loss of a batch of rows: one forward pass, logits only where a token has a weight."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from raypipe.models import tree
from raypipe.settings.config import Training
from raypipe.training.examples import Examples
from raypipe.training.schedule import Indices


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
        hidden = tree.hidden_states(self.model, trees)[row, trees.source_BT[row, column]]
        target, weight = trees.input_ids_BT[row, column], weight_BT[row, column]
        total = hidden.new_zeros((), dtype=torch.float32)
        # the logits of all parts but the one at hand are recomputed in the backward pass
        for part in range(0, len(target), tree.LOGIT_ROWS):
            some = slice(part, part + tree.LOGIT_ROWS)
            if len(target) > tree.LOGIT_ROWS and torch.is_grad_enabled():
                total = total + checkpoint(self._loss, hidden[some], target[some], weight[some], use_reentrant=False)
            else:
                total = total + self._loss(hidden[some], target[some], weight[some])
        return total

    def _loss(self, hidden_ND: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        return (cross_entropy(tree.logits(self.model, hidden_ND), target_N, reduction="none") * weight_N).sum()


def batch_of(examples: Examples, rows: Indices, pad_id: int, device: torch.device) -> tuple[tree.Trees, Tensor]:
    """Rows as a padded batch and their loss weights [B, T]."""
    parts = [examples.row(int(row)) for row in rows]
    trees = tree.collate([(ids, branch) for ids, _, branch in parts], pad_id, device)
    weight = np.zeros(trees.input_ids_BT.shape, np.float32)
    for index, (_, weight_T, _) in enumerate(parts):
        weight[index, : len(weight_T)] = weight_T
    return trees, torch.from_numpy(weight).to(device)


def autocast(training: Training, device: torch.device) -> Any:
    """The context in which a forward pass runs: bfloat16 products, or nothing."""
    wanted = training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()
