"""What a process is after `protect`."""

from __future__ import annotations

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from raypipe.guard import limits, process


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    process.protect()
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("folder", "file")] == [0o700, 0o600]
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0, "a core dump would hold notes"


def test_libraries_open_no_connection_unless_a_model_is_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_OF_THE_USER", {"TRANSFORMERS_OFFLINE": "1"})
    process.protect()
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    process.protect_with_hub()
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["TRANSFORMERS_OFFLINE"] == "1", "the user's own"


@pytest.mark.parametrize(("is_ours", "lines"), [(False, 0), (True, 1)])
def test_a_thread_that_fails_is_told_if_it_is_ours(
    is_ours: bool, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    process.protect()
    thread = threading.Thread(target=limits.compiled if is_ours else int, args=("(Mario Rossi",))
    thread.start()
    thread.join()
    err = capsys.readouterr().err
    assert err.count("\n") == lines
    assert "Rossi" not in err
