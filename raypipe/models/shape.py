"""A decoder's size, arithmetic and activations from its configuration alone: on torch's meta device, without weights.

FLOPs are model FLOPs, as training/throughput.py counts them: 2 per weight and token in a forward pass; attention looks
from every token at every token and is not halved for being causal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from raypipe.errors import InputError, Problem
from raypipe.models.families import FAMILIES, refusal


def on_meta(make: Callable[[], Any]) -> Any:
    """What `make` builds, with shapes and no numbers."""
    with torch.device("meta"):
        return make()


def of_config(model_config: Any) -> Any:
    """The decoder of a configuration on the meta device, all of it trainable."""
    attention = FAMILIES[model_config.model_type].attention
    return on_meta(lambda: AutoModelForCausalLM.from_config(model_config, attn_implementation=attention))


def read_config(path: Path) -> Any:
    """A config.json, or the one in a folder. Raises `InputError` if it describes no decoder that can be used."""
    file = path / "config.json" if path.is_dir() else path
    try:
        written = json.loads(file.read_text())
        model_config = AutoConfig.for_model(written.pop("model_type"), **written)
    except Exception as error:  # a broken config.json can fail anywhere in transformers
        raise InputError([Problem(str(file), f"not a readable config.json ({type(error).__name__})")]) from None
    if (reason := refusal(model_config)) is not None:
        raise InputError([Problem(str(file), reason)])
    return model_config


@dataclass(frozen=True)
class Shape:
    """What arithmetic and memory follow from."""

    parameters: int
    tensors: int  # that a file of weights holds
    block_weights: int  # numbers in the matrices of all blocks that a token meets
    depth: int
    hidden: int
    attention_width: int  # heads times the width of a head
    key_value_width: int  # the same of the cached keys, and of the values
    vocabulary: int
    features: int  # numbers that the matrices of one block produce for a token
    widest: int  # the largest part of them: the width of the MLP

    @classmethod
    def of(cls, model: Any) -> Shape:
        """From a model on any device."""
        c = model.config
        heads, blocks = c.num_attention_heads, model.get_submodule(FAMILIES[c.model_type].blocks)
        per_head = getattr(c, "head_dim", None) or c.hidden_size // heads
        produced = [_outputs(weight, c) for weight in matrices(blocks[0])]
        parameters = list(model.parameters())
        return cls(
            parameters=sum(p.numel() for p in parameters),
            tensors=len(parameters),
            block_weights=sum(numbers_met(weight, c) for weight in matrices(blocks)),
            depth=len(blocks),
            hidden=c.hidden_size,
            attention_width=heads * per_head,
            key_value_width=(getattr(c, "num_key_value_heads", None) or heads) * per_head,
            vocabulary=model.get_output_embeddings().weight.shape[0],
            features=sum(produced),
            widest=max(produced),
        )

    def forward(self, tokens: float, pairs: float, share: float = 1.0) -> float:
        """FLOPs of `tokens` through a share of the blocks. `pairs`: how often one token looks at another."""
        return share * (2 * self.block_weights * tokens + 4 * self.attention_width * self.depth * pairs)

    def backward(self, tokens: float, pairs: float, share: float = 1.0) -> float:
        """FLOPs of the gradient of the activations alone: no weight is trained."""
        return share * (2 * self.block_weights * tokens + 8 * self.attention_width * self.depth * pairs)

    def head(self, positions: float) -> float:
        """FLOPs of the logits of whole vocabularies."""
        return 2.0 * self.hidden * self.vocabulary * positions

    def activation_bytes(self, element: int) -> int:
        """Bytes that a block holds of a token for the backward pass (as arXiv 2205.05198, section 4.1, counts them).

        What its matrices produce, the MLP's activation and product, and both normalised inputs in `element` bytes a
        number; both residual states in float32. The attention kernel keeps no scores.
        """
        return element * (self.features + 2 * self.widest + 2 * self.hidden) + 2 * 4 * self.hidden

    def cache_bytes(self, element: int) -> int:
        """Bytes of a token's keys and values in all blocks."""
        return 2 * element * self.key_value_width * self.depth


def matrices(blocks: Any) -> list[Any]:
    """The matrices of blocks; experts are stacked in one parameter [experts, rows, columns]."""
    return [parameter for parameter in blocks.parameters() if parameter.ndim in (2, 3)]


def numbers_met(weight: Any, model_config: Any) -> int:
    """Numbers of a matrix that a token is multiplied with: of stacked experts, of those that it is sent to."""
    return int(weight.shape[-2] * weight.shape[-1] * _times(weight, model_config))


def _times(weight: Any, model_config: Any) -> int:
    """How many matrices of this parameter a token meets."""
    return int(model_config.num_experts_per_tok) if weight.ndim == 3 else 1


def _outputs(weight: Any, model_config: Any) -> int:
    """Features that a matrix produces: GPT-2 stores it transposed, so what is not the hidden size counts."""
    rows, columns = weight.shape[-2:]
    hidden = model_config.hidden_size
    produced = rows if columns == hidden else columns if rows == hidden and columns > rows else rows
    return int(produced * _times(weight, model_config))
