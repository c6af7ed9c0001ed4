"""What a run may lose, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.runs.clean import dispensable


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with everything in it that may go, and everything next to it that may not."""
    for name in (
        "config.yaml", "mask/settings.json", "mask/manifest.json", "mask/data/a.parquet",
        "mask~/settings.json", "mask~/data/a.parquet", "attribute/manifest.json.77.new",
        "train/a/manifest.json", "train/a/checkpoint/state.json", "train/a/model/w.safetensors",
        "train/b/checkpoint/state.json", "train/b/settings.json",
        "states/finetune/a/manifest.json", "states/finetune/a/data/x", "probe/finetune/a/manifest.json",
        "states/backbone/manifest.json", "states/backbone/data/x",
        "cells/seed0-all/train/a/manifest.json", "cells/seed0-all/train/a/checkpoint/state.json",
        "corpus/notes~/readme",
    ):  # fmt: skip
        _file(tmp_path / name)
    return tmp_path


def test_only_what_is_made_again_may_go(run: Path) -> None:
    may_go = {str(one.path.relative_to(run)) for one in dispensable(run)}
    assert may_go == {
        "mask~", "attribute/manifest.json.77.new", "train/a/checkpoint", "states/finetune/a",
        "cells/seed0-all/train/a/checkpoint",
    }  # fmt: skip


def test_removal_leaves_the_rest(run: Path) -> None:
    gone = [one.path for one in dispensable(run)]
    others = {path for path in run.rglob("*") if path.is_file() and not any(p in (path, *path.parents) for p in gone)}
    for one in dispensable(run):
        one.remove()
    assert {path for path in run.rglob("*") if path.is_file()} == others
    assert dispensable(run) == []


def test_no_other_folder_is_looked_through(tmp_path: Path) -> None:
    _file(tmp_path / "mine~" / "settings.json")
    with pytest.raises(InputError, match="is not the folder of a run"):
        dispensable(tmp_path)
