"""LoRA adapters (arXiv 2106.09685) on PEFT: made, trained over frozen weights, saved beside their base, merged.

What is frozen has no gradient and no moments: neither the embeddings nor the head, and no backward pass reaches below
the first block with adapters. Where products are computed in bfloat16 and the backbone is stored in it, the frozen
matrices stay as stored instead of being cast in every pass; adapters, norms and the hidden states between blocks are
float32, as under autocast of a float32 model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from raypipe.errors import InputError, Problem
from raypipe.models.families import FAMILIES
from raypipe.models.loading import without_renamed
from raypipe.settings import config
from raypipe.training.loss import in_bfloat16


def prepare(model: Any, training: config.Training, device: torch.device) -> Any:
    """A model, in the dtype that it is stored in, as `training` needs it: float32 but for what may stay in bfloat16.

    Returns the PEFT model with adapters, or None where all parameters are trained. Changes `model` in place.
    """
    is_frozen_bfloat16 = training.lora is not None and model.dtype == torch.bfloat16 and in_bfloat16(training, device)
    for parameter in model.parameters():
        if parameter.ndim < 2 or not is_frozen_bfloat16:  # norms and biases are float32 in any case
            parameter.data = parameter.data.float()
    return None if training.lora is None else add(model, training.lora)


def add(model: Any, lora: config.Lora) -> Any:
    """The model with LoRA adapters on all linear layers from block `lora.first_block` on; only they are trainable."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    path = FAMILIES[model.config.model_type].blocks
    blocks = model.get_submodule(path)
    if (what := lora.misses(len(blocks))) is not None:
        raise InputError([Problem("lora.first_block", what)])
    linear = {name: m for block in blocks for name, m in block.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(linear),
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in linear.values()),  # GPT-2 stores its weights transposed
        layers_pattern=path.rpartition(".")[2],
        layers_to_transform=list(range(lora.first_of(len(blocks)), len(blocks))),
        task_type="CAUSAL_LM",
    )
    with without_renamed():  # PEFT asks the model by a name that transformers has given up
        return get_peft_model(model, settings)


def save(adapted: Any, base: config.Model, folder: Path) -> None:
    """Write the adapters. Their config names the model that they were trained on, so that PEFT loads that one."""
    settings = adapted.peft_config["default"]
    local = Path(base.path)
    settings.base_model_name_or_path = str(local.resolve()) if local.is_dir() else base.path
    settings.revision = base.revision
    adapted.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def merge(adapted: Any) -> Any:
    """The model with its adapters added to the weights, all of it trainable again."""
    return adapted.merge_and_unload().requires_grad_(True)
