"""What a run may lose, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypipe import cli
from raypipe.errors import InputError
from raypipe.runs import lock
from raypipe.runs.clean import dispensable

CANARY = "Mario Rossi, nato a Pavia"


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


@pytest.fixture(autouse=True)
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray's sessions lie: none is there. The path is short, as sockets need it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder) / f"raypipe-{os.getuid()}/ray"


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


def test_shared_words_of_notes_may_go(run: Path) -> None:
    _file(run / "runs/small/config.yaml")
    shared = [_file(run / f"runs/{place}.cache/statistics/a1/words.parquet") for place in ("", "small/cells/")]
    listed = CliRunner().invoke(cli.app, ["clean", "--config", str(run / "runs/small")])
    for path in shared:
        assert f"MB  {path.parents[1]}: are words of notes" in listed.output
        assert path.exists()
    assert CliRunner().invoke(cli.app, ["clean", "--yes", "--config", str(run / "runs/small")]).exit_code == 0
    assert not [path for path in run.rglob("words.parquet")]


def test_shared_words_behind_a_link_are_left(run: Path) -> None:
    _file(run / "runs/small/config.yaml")
    words = _file(run / "elsewhere/statistics/a1/words.parquet")
    (run / "runs/.cache").symlink_to(run / "elsewhere")
    assert dispensable(run / "runs/small") == []
    assert words.exists()


def test_a_link_is_neither_followed_nor_deleted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _file(elsewhere / "state.json")
    (run / "train/a/other").mkdir()
    _file(run / "train/a/other/manifest.json")
    (run / "train/a/other/checkpoint").symlink_to(elsewhere)
    ended = CliRunner().invoke(cli.app, ["clean", "--yes", "--config", str(run)])
    assert isinstance(ended.exception, InputError)
    assert str(ended.exception).startswith(f"{run}/train/a/other/checkpoint: is a symbolic link")
    assert (elsewhere / "state.json").exists()
    assert (run / "mask~").exists()


def test_after_it_no_text_is_left_of_a_cluster_that_was_killed(run: Path, sessions: Path) -> None:
    """Of one that lives, whoever started it, nothing goes."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    killed, own, others = (
        sessions / f"session_2026-01-01_00-00-0{n}_1_{pid}" for n, pid in enumerate((dead.pid, os.getpid(), dead.pid))
    )
    for session in (killed, own, others):
        _file(session / "ray_spilled_objects_7/0a-multi-1").write_text(CANARY)
        (session / "sockets").mkdir()
    (sessions / "session_latest").symlink_to(own)
    (sessions / "mine").mkdir()
    with socket.socket(socket.AF_UNIX) as plasma, socket.socket(socket.AF_UNIX) as of_the_dead:
        for server, session in ((plasma, others), (of_the_dead, killed)):
            server.bind(str(session / "sockets/plasma_store"))
        plasma.listen()
        of_the_dead.close()
        ended = CliRunner().invoke(cli.app, ["clean", "--yes", "--config", str(run)])
    assert ended.exit_code == 0
    assert f"{killed}: is what a Ray that has ended left" in ended.output
    holding = {path for path in sessions.rglob("*") if path.is_file() and CANARY in path.read_text()}
    assert holding == {session / "ray_spilled_objects_7/0a-multi-1" for session in (own, others)}
    assert (sessions / "mine").exists()


def test_sessions_in_a_folder_that_another_user_planted_are_left(run: Path, sessions: Path) -> None:
    session = sessions / "session_2026-01-01_00-00-00_1_4194305"  # more than Linux has processes
    _file(session / "logs/raylet.out")
    assert session in [one.path for one in dispensable(run)]
    elsewhere = sessions.parents[1] / "elsewhere"
    sessions.parent.rename(elsewhere)
    sessions.parent.symlink_to(elsewhere)
    assert session not in [one.path for one in dispensable(run)]
