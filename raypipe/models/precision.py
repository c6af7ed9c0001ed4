"""What is done again in float32 because bfloat16 cannot settle it."""

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


def float32_twin(loaded: Loaded) -> Loaded | None:
    """A float32 copy of a decoder; None if the memory is too small, which is logged once per call."""
    try:
        return replace(loaded, model=copy.deepcopy(loaded.model).float())
    except torch.OutOfMemoryError:
        logger.warning("no memory for a float32 copy of the model: borderline labels stay as %s", loaded.model.dtype)
        return None
