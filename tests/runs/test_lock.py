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
from raypipe.errors import ExitCode, InputError
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


def test_whoever_waits_gets_it_when_it_is_given_back(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(lock, "LOOK_S", 0.01)

    def give_back(seconds: float) -> None:
        waited.append(seconds)
        holder.communicate()

    monkeypatch.setattr(lock.time, "sleep", give_back)
    with lock.awaited(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / lock.NAME).read_text())["pid"] == os.getpid()
    assert waited == [0.01]


def test_a_part_of_a_run_is_held_as_the_run(tmp_path: Path) -> None:
    outer = Run(settings(tmp_path / "run")).open()
    cell = Run(outer.settings.model_copy(update={"name": "seed0-all", "runs": str(outer.folder / "cells")})).open()
    with lock.held(outer.folder), pytest.raises(InputError, match="being written to"), cell.held("x.yaml", None):
        pass
    with cell.held("x.yaml", None):
        assert (outer.folder / lock.NAME).exists()
        assert not (cell.folder / lock.NAME).exists()


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


LOSES = """
import json, signal, sys, threading
from raypipe import cli
from raypipe.runs import driver, lock
lock.BEAT_S = 0.01
def lose(run):
    other = {"host": "node7", "pid": 1, "since": "now", "machine": "node7"}
    (run.folder / "other").write_text(json.dumps(other))
    (run.folder / "other").replace(run.folder / lock.NAME)
    threading.Event().wait(60)
    (run.folder / "written").touch()
driver.run_all = lose
signal.signal(signal.SIGINT, signal.default_int_handler if sys.argv[2] == "a terminal" else signal.SIG_IGN)
cli.main(["run", "--config", sys.argv[1]])
"""


@pytest.mark.parametrize("started_by", ["a terminal", "a script with &"])  # which lets it ignore ctrl-C
def test_a_command_that_lost_the_lock_ends_and_says_so(started_by: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(configfile.dump(settings(tmp_path, name="run")))
    command = [sys.executable, "-c", LOSES, str(config), started_by]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == ExitCode.PARTIAL
    assert ended.stderr.startswith(f"error: {tmp_path}/run was taken over by process 1 on node7 since now: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "written").exists()
    assert lock._read(tmp_path / "run" / lock.NAME) is not None, "it is the other's"


WRITING = ["run", "compare", "tune", "canaries", "pretrain", "finetune", "attribute", "faithfulness", "mask"]
WRITING += ["train", "evaluate", "probe", "repair"]


def test_commands_that_write_ask_and_readers_do_not(
    holder: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(configfile.dump(settings(tmp_path, name="run")))
    (tmp_path / "s.py").write_text("PARAM_SPACE = {'arms.decselfmask.masking.ratio': 0.3}")
    options = {"tune": ["--space", str(tmp_path / "s.py")]}
    for command in WRITING:
        what = [str(tmp_path / "run/mask")] if command == "repair" else ["--config", str(config)]
        with pytest.raises(SystemExit) as end:
            cli.main([command, *what, *options.get(command, ())])
        assert end.value.code == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert f"by process {holder.pid}" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lock.NAME]
    with pytest.raises(SystemExit):
        cli.main(["report", "--config", str(config)])
    assert "corpus: is not finished" in capsys.readouterr().err


INNER = [
    "cells/seed0-all", "cells/seed0-all-tuned", "cells/seed0-all-tuned/choose/epochs4", "canaries", "tune/m/base",
    "tune/m/shared/12ab", "tune/m/trials/12ab", "cells/seed0-all/canaries",
]  # fmt: skip
STEPS = ["mask", "train/rows", "train/decselfmask", "states/train/decselfmask", "evaluate/decselfmask@1"]


@pytest.mark.parametrize("above", ["", "config.yaml", "tune/m", "runs/config.yaml"])
@pytest.mark.parametrize("name", ["whole", "train", "cells"])
def test_a_step_of_a_cell_or_trial_belongs_to_the_whole_run(above: str, name: str, tmp_path: Path) -> None:
    """Whatever else lies above the run, and whatever it is called."""
    run = tmp_path / "runs" / name
    for inner in ("", *INNER):
        (run / inner).mkdir(parents=True)
        (run / inner / "config.yaml").touch()
    if above:
        (tmp_path / above).parent.mkdir(exist_ok=True)
        (tmp_path / above).touch()
    for inner in ("", "variants/a/", *(f"{inner}/" for inner in INNER)):
        assert lock.root_of(run / inner) == run
        for step in STEPS:
            assert lock.run_of(run / inner / step) == run, inner + step


@pytest.mark.parametrize("step", STEPS)
def test_a_run_without_a_config_is_the_one_that_the_step_lies_in(step: str, tmp_path: Path) -> None:
    """As after `raypipe download`."""
    (tmp_path / "config.yaml").touch()
    assert lock.run_of(tmp_path / "demo" / step) == tmp_path / "demo"


def test_a_search_whose_run_has_made_nothing_itself_holds_the_lock(tmp_path: Path) -> None:
    (tmp_path / "run/tune/m/base").mkdir(parents=True)
    (tmp_path / "run/tune/m/base/config.yaml").touch()
    assert lock.run_of(tmp_path / "run/tune/m/base/finetune/scorer") == tmp_path / "run"
