"""The really pre-trained decoders of `make models`, for tests that need one: they skip, with the reason, without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pretrained(name: str) -> Path:
    """The folder of a model, such as gemma3-270m; skips the test if it is not there. For the body of a test."""
    if not (root := os.environ.get("RAYPIPE_PRETRAINED")):
        pytest.skip("RAYPIPE_PRETRAINED is not set: no pre-trained models here (make models)")
    folder = Path(root) / name
    if not (folder / "config.json").exists():
        pytest.skip(f"{name} is not in RAYPIPE_PRETRAINED (make models)")
    return folder
