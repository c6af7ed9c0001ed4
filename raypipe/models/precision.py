"""Where bfloat16 pays, and what is done again in float32 because bfloat16 cannot settle it."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import torch

from raypipe.models.loading import Loaded

logger = logging.getLogger(__name__)

# Below this margin (nats) bfloat16 may prefer the wrong label: the question is done again in float32. bfloat16 keeps
# 8 bits, so a logit of 16 is known to 1/16.
BORDERLINE = 0.1

# Instructions that multiply bfloat16 numbers, as torch names them: x86 (AVX-512, AMX) and ARM.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Does the device have bfloat16 products? A CPU without them emulates each, many times slower than float32."""
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in _INSTRUCTIONS)


def float32_twin(loaded: Loaded) -> Loaded | None:
    """A float32 copy of a decoder; None if the memory is too small, which is logged once per call."""
    try:
        return replace(loaded, model=copy.deepcopy(loaded.model).float())
    except torch.OutOfMemoryError:
        logger.warning("no memory for a float32 copy of the model: borderline labels stay as %s", loaded.model.dtype)
        return None
