"""Run a module with another forward function, or a model with another attention, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_as(module: nn.Module, function: Any) -> Iterator[None]:
    """Replace the forward function of this one module."""
    before = module.__dict__.get("forward")
    module.forward = function
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@contextmanager
def attention_as(model: Any, implementation: str) -> Iterator[None]:
    """Run the model with another attention implementation that transformers knows by this name."""
    before = model.config._attn_implementation
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = before
