"""What a run may lose, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypipe import cli
from raypipe.errors import InputError
from raypipe.runs import lock
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


@pytest.mark.parametrize("options", [[], ["--yes"]])
def test_what_another_command_did_before_it_gave_the_lock_is_looked_at(
    run: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """One thing that might have gone was deleted meanwhile, another is needed now."""
    locked: list[Path] = []

    @contextmanager
    def held(folder: Path) -> Iterator[None]:
        (run / "attribute/manifest.json.77.new").unlink()
        (run / "probe/finetune/a/manifest.json").unlink()
        locked.append(folder)
        yield

    monkeypatch.setattr(lock, "held", held)
    ended = CliRunner().invoke(cli.app, ["clean", "--config", str(run), *options])
    assert ended.exit_code == 0
    assert locked == [run] * len(options), "looking asks for no lock"
    assert (run / "mask~").exists() is not bool(options)
    assert (run / "states/finetune/a").exists()


def test_a_cell_is_cleaned_under_the_lock_of_its_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(run / "cells/seed0-all/config.yaml")
    (run / lock.NAME).write_text('{"pid": 1, "host": "node7", "since": "now", "machine": "node7"}')
    monkeypatch.setattr(lock, "_is_alive", lambda *_: True)
    ended = CliRunner().invoke(cli.app, ["clean", "--yes", "--config", str(run / "cells/seed0-all")])
    assert isinstance(ended.exception, InputError)
    assert (run / "cells/seed0-all/train/a/checkpoint").exists()
