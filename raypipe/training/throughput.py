"""How much arithmetic a training did, and what share of the card's peak that is.

Model FLOPs (PaLM, arXiv 2204.02311, appendix B): what the result needs, without what is computed twice (checkpointing)
or for nothing (padding). 2 per weight and token in the forward pass, 2 in the backward pass for the gradient of the
activations and 2 for that of the weight if it is trained: 6 N in full fine-tuning, 4 N and a little with LoRA.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raypipe.models.families import FAMILIES
from raypipe.models.shape import matrices, numbers_met
from raypipe.training.examples import Examples
from raypipe.training.schedule import Indices


@dataclass(frozen=True)
class Work:
    """What rows ask for."""

    tokens: int = 0  # padding excluded
    targets: int = 0  # tokens with a loss weight: the head runs on these alone
    pairs: int = 0  # sum of squared row lengths: attention looks from every token at every token

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.targets + other.targets, self.pairs + other.pairs)


def work_of(examples: Examples, rows: Indices) -> Work:
    """The work that some rows are."""
    length = examples.length[rows]
    return Work(int(length.sum()), examples.targets_of(rows), int((length**2).sum()))


def training_flops(model: Any, work: Work) -> float:
    """Model FLOPs of training on this much work; attention is not halved for being causal.

    Below the first block with something to train there is a forward pass alone.
    """
    head, c = model.get_output_embeddings(), model.config
    heads = c.num_attention_heads
    width = heads * (getattr(c, "head_dim", None) or c.hidden_size // heads)
    blocks = model.get_submodule(FAMILIES[c.model_type].blocks)
    first = _first_trained(model, blocks)
    below, above = matrices(blocks[:first]), matrices(blocks[first:])
    per_token = 2 * sum(numbers_met(weight, c) for weight in below) + _trained(above, c)
    attention = 4 * width * work.pairs * (first + 3 * (len(blocks) - first))
    return float(work.tokens * per_token + work.targets * _trained([head.weight], c) + attention)


def _first_trained(model: Any, blocks: nn.ModuleList) -> int:
    """The block from which on gradients are computed: 0 if the embeddings are trained."""
    if any(p.requires_grad for p in model.get_input_embeddings().parameters()):
        return 0
    trained = (i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters()))
    return next(trained, len(blocks))


def _trained(weights: list[nn.Parameter], model_config: Any) -> int:
    """FLOPs a token of matrices that gradients pass through."""
    return sum((6 if weight.requires_grad else 4) * numbers_met(weight, model_config) for weight in weights)


def matrix_peak(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of one large square matrix product in this dtype on this device, best of 5 after one to warm up."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, dtype=dtype, device=device)
    seconds = []
    for _ in range(6):
        start = clock()
        (a @ a)[0, 0].item()  # waits for the device
        seconds.append(clock() - start)
    return 2 * n**3 / min(seconds[1:])
