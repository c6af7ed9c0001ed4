"""JSON that is written whole or not at all, and which versions of which packages wrote it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("raypipe", "ray", "torch", "transformers", "peft", "captum", "pyarrow", "scikit-learn", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
    fresh.replace(path)


def versions() -> dict[str, str]:
    """Version of Python and of the packages that results depend on, as far as they are installed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
