"""A run so small that every step of it takes a second or two in this process: for tests of how steps fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypipe.settings import config
from raypipe.settings.config import Config

TRAINING = {"max_steps": 2, "batch_rows": 8, "learning_rate": 1e-3}
SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {
        "source": "synthetic",
        "synthetic": {"n_labelled": 24, "n_unlabelled": 30, "n_dev": 8, "n_test": 12, "n_pretraining": 40},
    },
    "prompt": {"question": "\nSintesi: {question}", "max_tokens": 256},
    "model": {"path": "pretrain"},
    "pretrain": {
        "vocab_size": 400,
        "hidden_size": 16,
        "intermediate_size": 32,
        "layers": 3,
        "heads": 2,
        "context": 256,
        "training": TRAINING,
    },
    "finetune": TRAINING,
    "train": TRAINING,
    "attribution": {"method": "grad_x_activation", "reduction": "l2"},
    "arms": {
        "sft": {},
        "decselfmask": {"masking": {"ratio": 0.2}},
    },
    "evaluation": {"bootstrap": 100},
    "resources": {"ray": False},
}


def settings(runs: Path, **changes: Any) -> Config:
    """The small run's config with other values at dotted keys (`attribution__layer=2` changes attribution.layer)."""
    whole = config.Config.model_validate(SETTINGS | {"runs": str(runs)}).model_dump()
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = whole
        for name in sections:
            section = section[name]
        section[last] = value
    return Config.model_validate(whole)
