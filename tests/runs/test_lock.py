"""One command at a time writes in a run's folder, whatever happened to the one before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe import cli
from raypipe.errors import InputError
from raypipe.runs import lock
from raypipe.runs.run import Run
from raypipe.settings import configfile
from tests.small_run import settings

HOLD = """
import sys
from pathlib import Path
from raypipe.runs import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path/run` until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _claim(folder: Path) -> None:
    with lock.held(folder):
        assert (folder / lock.NAME).exists()


def _foreign(folder: Path, age_s: float, **about: object) -> Path:
    """The lock of a process on another machine, renewed so many seconds ago."""
    folder.mkdir()
    path = folder / lock.NAME
    path.write_text(json.dumps({"host": "node7", "pid": 1, "since": "yesterday", "machine": "node7", **about}))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
    return path


def test_a_second_command_is_refused_and_told_by_whom(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    since = json.loads((run / lock.NAME).read_text())["since"]
    with pytest.raises(InputError, match=f"being written to by process {holder.pid} on ") as error:
        _claim(run)
    assert since in str(error.value)
    assert len(error.value.problems) == 1
    holder.communicate()
    assert holder.returncode == 0
    assert not run.exists(), "it made nothing else there"
    _claim(run)


def test_a_killed_holder_keeps_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / lock.NAME).exists()
    _claim(tmp_path / "run")


def test_ctrl_c_gives_the_lock_back(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGINT)
    holder.wait()
    assert not (tmp_path / "run" / lock.NAME).exists()


def test_another_process_with_the_number_of_the_dead_one_is_no_holder(tmp_path: Path) -> None:
    own = lock._this_process()
    _foreign(tmp_path / "run", 0.0, machine=own["machine"], pid=os.getpid(), started="long ago")
    _claim(tmp_path / "run")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's lock is watched for a second, not for minutes."""
    monkeypatch.setattr(lock, "DEAD_S", 1.0)
    monkeypatch.setattr(lock, "LOOK_S", 0.01)


@pytest.mark.usefixtures("patience")
def test_another_machines_lock_is_alive_if_it_is_renewed(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "run", 3600.0)  # however old: its machine's clock may be wrong
    renewal = threading.Timer(0.2, os.utime, [path])
    renewal.start()
    with pytest.raises(InputError, match="by process 1 on node7 since yesterday"):
        _claim(tmp_path / "run")
    renewal.join()
    assert path.exists()


@pytest.mark.usefixtures("patience")
def test_the_lock_of_a_lost_machine_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.0)  # of which one was missed
    _foreign(tmp_path / "run", 0.0)
    _claim(tmp_path / "run")
    assert capsys.readouterr().out.count("was last written to by process 1 on node7 since yesterday: waiting") == 1


def test_a_lock_that_is_given_back_meanwhile_is_free(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "run", 0.0)
    threading.Timer(0.2, path.unlink).start()
    _claim(tmp_path / "run")


@pytest.mark.usefixtures("patience")
def test_a_lock_that_is_being_written_is_alive(tmp_path: Path) -> None:
    path = tmp_path / lock.NAME
    path.touch()
    threading.Timer(0.2, path.write_text, ['{"host": "node7"}']).start()
    with pytest.raises(InputError, match="is being written to by process None on node7"):
        _claim(tmp_path)


@pytest.mark.usefixtures("patience")
def test_of_two_that_wait_for_a_dead_lock_one_removes_it(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "run", 0.0)
    dead = lock._mark(path)
    guard = path.with_suffix(".guard")
    guard.touch()  # the other is about to
    lock._remove_dead(path, dead)
    assert path.exists()
    os.utime(guard, (0, 0))  # it died there
    lock._remove_dead(path, dead)
    assert not guard.exists()
    os.utime(path, (0, 1))  # the other's new lock
    lock._remove_dead(path, dead)
    assert path.exists()
    lock._remove_dead(path, lock._mark(path))
    assert not path.exists()


def test_who_lost_the_lock_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.0)

    def lose_it() -> None:
        with lock.held(tmp_path):
            (tmp_path / "other").write_text(json.dumps({"host": "node7", "pid": 1, "since": "now", "machine": "node7"}))
            (tmp_path / "other").replace(tmp_path / lock.NAME)
            threading.Event().wait(60)  # for the interrupt

    with pytest.raises(InputError, match="was taken over by process 1 on node7"):
        lose_it()
    assert (tmp_path / lock.NAME).exists(), "it is the other's"


def test_commands_that_write_ask_and_readers_do_not(
    holder: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(configfile.dump(settings(tmp_path, name="run")))
    for command in ("run", "compare", "mask", "train", "evaluate", "probe", "pretrain", "finetune", "attribute"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--config", str(config)])
        assert end.value.code == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert f"by process {holder.pid}" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lock.NAME]
    with pytest.raises(SystemExit):
        cli.main(["report", "--config", str(config)])
    assert "corpus: is not finished" in capsys.readouterr().err


def test_a_step_of_a_cell_or_trial_belongs_to_the_whole_run(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, name="whole"))
    for path in (run.folder, run.folder / "cells/seed0-all", run.folder / "tune/m/base"):
        path.mkdir(parents=True)
        (path / "config.yaml").touch()
    for step in ("mask", "cells/seed0-all/mask", "tune/m/base/finetune/scorer"):
        assert lock.run_of(run.folder / step) == run.folder
