"""Files that are written whole or not at all, and which versions of which packages wrote it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raypipe.errors import InputError, Problem

Kind = TypeVar("Kind")
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


def of_json(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """A flat dataclass as JSON has it: with lists where there were tuples."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """A table with the keys of its lines as header; at least one line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)


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


def sha256(path: Path) -> str:
    """Of a file's content, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Version of Python and of the packages that results depend on, as far as they are installed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed
