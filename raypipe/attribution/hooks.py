"""Temporary changes to a running decoder: where the graph starts, which blocks run, which rows a block computes.

Each is a context manager that leaves the model as it found it. They rely on two facts that hold for every family of
`models.families`: a block is called with its hidden states as first positional argument, and its MLP (also a mixture
of experts) works on each position alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.models.swapping import forward_as


@contextmanager
def cut(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Keep the hidden states [B, T, D] of `layers` (0 = input of the first block), and start the graph at the lowest.

    The dict fills during the forward pass. Its lowest entry is a leaf; the backward pass stores nothing below it.
    """
    states: dict[int, Tensor] = {}
    lowest = min(layers, default=-1)

    def keep(layer: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = args[0].detach().requires_grad_() if layer == lowest else args[0]
            states[layer] = hidden
            return (hidden, *args[1:])

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(blocks[layer].register_forward_pre_hook(keep(layer)).remove)
        yield states


@contextmanager
def resume(blocks: Sequence[nn.Module], layer: int, hidden_BTD: Tensor, as_tuple: bool) -> Iterator[None]:
    """Run only the blocks from `layer` on, as if their input were `hidden_BTD`; the lower ones pass through.
    `as_tuple`: blocks of this family return a tuple."""

    def enter(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (hidden_BTD, *args[1:])

    with ExitStack() as stack:
        for block in blocks[:layer]:
            stack.enter_context(forward_as(block, lambda hidden, *_, **__: (hidden, None) if as_tuple else hidden))
        stack.callback(blocks[layer].register_forward_pre_hook(enter).remove)
        yield


@contextmanager
def tap(blocks: Sequence[nn.Module], layer: int) -> Iterator[nn.Module]:
    """A module through which the hidden states of `layer` pass, for libraries that hook into modules."""
    identity = nn.Identity()
    handle = blocks[layer].register_forward_pre_hook(lambda _, args: (identity(args[0]), *args[1:]))
    try:
        yield identity
    finally:
        handle.remove()


@contextmanager
def only_rows(mlp: nn.Module, rows_P: Tensor, columns_P: Tensor) -> Iterator[None]:
    """Compute this MLP at the positions (row, column) alone; it returns zeros elsewhere.

    In the last block only the rows that are read need the MLP, which is a third to two thirds of the block's work.
    """
    run = mlp.forward

    def gathered(hidden_BTD: Tensor) -> Tensor:
        out = torch.zeros_like(hidden_BTD)
        if not len(rows_P):
            return out
        # one row of all positions: a mixture of experts wants three dimensions
        return out.index_put((rows_P, columns_P), run(hidden_BTD[rows_P, columns_P][None])[0])

    with forward_as(mlp, gathered):
        yield
