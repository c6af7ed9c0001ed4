"""Files that are written whole or not at all, and which versions of which packages wrote it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raypipe.errors import InputError, Problem

PACKAGES = ("raypipe", "ray", "torch", "transformers", "peft", "captum", "pyarrow", "scikit-learn", "numpy")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what stands at `path` once the block has ended; a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def halves(files: Iterable[Path]) -> list[Path]:
    """Those of the files that a killed process had begun to write with `replacing`."""
    return [file for file in files if re.search(r"\.\d+\.new$", file.name)]


def forget_halves(folder: Path) -> None:
    """Delete the halves in a folder that nobody else writes in now."""
    for half in halves(folder.glob("*.new")):
        half.unlink()


def json_of(path: Path) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for all that is no JSON, such as 100,000 brackets."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """`replacing`, where nothing may be replaced.

    Raises `InputError` if something lies there, or if there is no such folder.
    """
    if path.exists():
        raise InputError([Problem(str(path), "is there already; name a new file, or delete it")])
    if not path.absolute().parent.is_dir():
        raise InputError([Problem(str(path), "there is no such folder to write in")])
    with replacing(path) as fresh:
        yield fresh


def versions() -> dict[str, str]:
    """Version of Python and of the packages that results depend on, as far as they are installed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
