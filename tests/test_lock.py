"""The lock files: the versions of constraints.txt with the hashes of their files, and no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-torch.lock")
INSTALLED = re.compile(r"pip install (?:-\S+ )*['\"]?raypipe")


def _versions(lines: list[str]) -> dict[str, str]:
    pairs = (re.split(r"==|[ ;\\]", line)[:2] for line in lines if re.match(r"[A-Za-z]", line))
    return {canonicalize_name(name): version for name, version in pairs}


PINNED = _versions((ROOT / "constraints.txt").read_text().splitlines())
LOCKED = {name: _versions((ROOT / name).read_text().splitlines()) for name in LOCKS}


def test_what_is_pinned_is_locked_in_the_same_version() -> None:
    assert {**LOCKED[LOCKS[1]], **LOCKED[LOCKS[0]]}.items() >= PINNED.items()
    for locked in LOCKED.values():
        assert not {name for name in locked.keys() & PINNED.keys() if locked[name] != PINNED[name]}


def test_torch_and_its_libraries_are_locked_apart() -> None:
    assert "torch" not in LOCKED[LOCKS[0]], "a machine may take another build of it than the package index's"
    assert not [name for name in LOCKED[LOCKS[0]] if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "torch" in LOCKED[LOCKS[1]]


def test_every_dependency_is_locked_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, needed):
        name = canonicalize_name(requirement.name)
        version = next(locked[name] for locked in LOCKED.values() if name in locked)
        assert requirement.specifier.contains(version), requirement


def test_nobody_is_told_to_install_raypipe_from_an_index() -> None:
    """Its name there is somebody else's package (SECURITY.md)."""
    ours = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in ("runs", "tests")]
    kinds = ("*.md", "*.py", "*.yaml", "*.sh", "*.toml", "Dockerfile")
    texts = {path for place in ours for kind in kinds for path in ([place] if place.is_file() else place.rglob(kind))}
    assert [path for path in texts if path.suffix != ".lock" and INSTALLED.search(path.read_text())] == []
    assert INSTALLED.search("pip install -U 'raypipe[gguf]'")
    assert not INSTALLED.search("`pip install gguf` for raypipe")


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=[A-Za-z])", text.partition("make lock\n")[2])
    assert len(entries) == len(LOCKED[name])
    for entry in entries:
        first, *hashes = entry.rstrip("\n").split(" \\\n")
        assert hashes, first
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
        assert " @ " not in first
    assert "://" not in text
    assert "--index" not in text
