"""A bidirectional encoder's view of single words: what Difference-Masking's authors compare words by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from raypipe.errors import InputError, Problem
from raypipe.words import F32

BATCH = 256  # words


@torch.no_grad()
def encoder_vectors(folder: str, words: Sequence[str]) -> F32:
    """The pooled output for each word alone [words, D] (2305.14577, code), or its mean last hidden state if the model
    has no pooler. Safetensors only, never remote code; raises `InputError` if the folder holds no such model.
    """
    if not any(Path(folder).glob("*.safetensors")):
        raise InputError([Problem("statistics.encoder", "no *.safetensors in the folder")])
    model, info = AutoModel.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model.eval()
    # a checkpoint without a pooler (a masked language model's) gets a random one on loading
    pools = not any("pooler" in key for key in info["missing_keys"])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    parts = [np.empty((0, model.config.hidden_size), np.float32)]
    for start in range(0, len(words), BATCH):
        inputs = tokenizer(list(words[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt")
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        pooled = getattr(out, "pooler_output", None)
        if pooled is None or not pools:
            weight_BT1 = inputs["attention_mask"][..., None].float()
            pooled = (out.last_hidden_state * weight_BT1).sum(1) / weight_BT1.sum(1)
        parts.append(pooled.float().numpy())
    return np.concatenate(parts)
