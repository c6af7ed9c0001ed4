"""What a process is after `protect`."""

from __future__ import annotations

import importlib.util
import logging
import os
import resource
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from raypipe.guard import limits, process, quiet


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


def _of_library(folder: Path) -> Any:
    """A module as it is installed, whose records quote what it failed on."""
    path = folder / "site-packages" / "reader.py"
    path.parent.mkdir()
    path.write_text(
        "import logging\n"
        "log = logging.getLogger('reader')\n"
        "def read(text):\n"
        "    try:\n"
        "        int(text)\n"
        "    except ValueError as error:\n"
        "        log.warning('%(error)s', {'error': error})\n"
        "        log.warning('%s', [error])\n"
        "        log.warning(f'{error}')\n"
        "        log.warning('%s', text)\n"
        "        log.exception('failed: %s', text)\n"
    )
    spec = importlib.util.spec_from_file_location("reader", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_record_of_a_library_is_the_line_that_wrote_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process.protect()
    _of_library(tmp_path).read("Mario Rossi")
    assert [record.getMessage() for record in caplog.records] == [
        *(f"WARNING of reader at reader.py:{line}" for line in (7, 8, 9, 10)),
        "ERROR of reader at reader.py:11 (ValueError at ?)",
    ]


def test_our_records_and_those_of_a_program_keep_their_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process.protect()
    logging.getLogger("of a program").warning("%s of %d", "one", 2)
    assert caplog.messages == ["one of 2"]
    monkeypatch.setattr(quiet, "_PACKAGE", Path("/venv/lib/python3.11/site-packages/raypipe"))
    other = process._is_of_library("/venv/lib/python3.11/site-packages/reader.py")
    assert (other, process._is_of_library(f"{quiet._PACKAGE}/attribution/engine.py")) == (True, False)
