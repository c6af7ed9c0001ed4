"""Commands as a user types them: one line per problem, documented exit codes, nothing of a note, no connection."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypipe import cli
from raypipe.errors import ExitCode
from raypipe.guard import process
from raypipe.runs.checking import of_settings
from raypipe.settings import configfile
from tests.small_run import settings
from tests.tiny_models import tiny_model, tiny_tokenizer

CANARY = "Mario Rossi, nato a Pavia"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # of Linux


@pytest.fixture(autouse=True)
def open_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is that of all tests: it stays as it is (guard/test_process.py)."""
    monkeypatch.setattr("raypipe.guard.command.protect", lambda: None)
    monkeypatch.setattr(process, "allow_hub", lambda: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(configfile.dump(settings(tmp_path / "runs")))
    return path


def _exit(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "No such command 'nosuch'."),
        (["run"], "Missing option '--config' / '-c'."),
        (["run", "--nope"], "No such option: --nope"),
        (["preview", "--config", "c.yaml", "--note", "a\udcff"], "argument 5 of the command: is not UTF-8"),
        (["show", "--note", "\x1b[2Jn", "--config", "/nowhere"], "/nowhere: cannot be read"),
    ],
)
def test_a_wrong_command_line_is_a_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit(*arguments) == ExitCode.CONFIG
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("hostile", ["\x1b]0;title\x07", "\x9b2J", "\u202e", "\x7f"])
@pytest.mark.parametrize("place", ["--set=na{}me=x", "--set=name=a{}b", "--set=data.max_chars={}", "--arm={}", "-c={}"])
def test_no_control_character_of_the_input_reaches_the_terminal(
    hostile: str, place: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "train" if place.startswith("--arm") else "check"
    assert _exit(command, "-c", config, place.format(hostile)) == ExitCode.CONFIG
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert all(c.isprintable() or c == "\n" for c in out + err)


@pytest.mark.parametrize("command", ["check", "run", "report", "mask", "compare"])
@pytest.mark.parametrize("runs", ["s3://bucket/runs", "gs://b", "file:///runs", "s3:/a:SEKRET@b", "s3://a:SEKRET@b/r"])
def test_runs_behind_a_uri_are_refused_by_every_command(
    command: str, runs: str, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert _exit(command, "-c", config, "--set", f"runs={runs}") == ExitCode.CONFIG
    err = capsys.readouterr().err
    assert "runs: " in err
    assert "SEKRET" not in err
    assert "mount the store" in err or "holds a credential" in err
    assert [path.name for path in config.parent.iterdir()] == ["small.yaml"], "nothing was written"


@pytest.mark.parametrize("key", ["data.notes", "data.labels", "data.tasks", "model.path", "model.adapter", "runs"])
@pytest.mark.parametrize(
    "uri", ["s3:/a:SEKRET@b", "s3:a:SEKRET@b", "//a:SEKRET@h/x", "a:SEKRET@h/x", "s3://a%3ASEKRET@b/x", "s3://a:SEK/RET@b"]
)  # fmt: skip
def test_a_credential_is_refused_in_every_spelling_and_never_shown(
    key: str, uri: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit("check", "-c", config, "--set", f"{key}={uri}") == ExitCode.CONFIG
    err = capsys.readouterr().err
    assert f"{key}: holds a credential" in err
    assert "SEK" not in err


def test_a_defect_of_the_driver_tells_no_text(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: Any) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(of_settings, "problems", defect)
    assert _exit("check", "-c", config) == ExitCode.DEFECT
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert err.startswith("error: ValueError at raypipe/runs/checking/check.py:")
    assert err.count("\n") == 1


def test_a_file_in_the_place_of_runs_is_a_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit("run", "-c", config, "--set", f"runs={config}") == ExitCode.STORAGE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(config) in err


def test_after_a_full_disk_the_same_command_goes_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from raypipe.runs import making

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, CANARY)

    with monkeypatch.context() as patched:
        patched.setattr(making.examples, "write", full)
        assert _exit("finetune", "-c", config) in (ExitCode.STORAGE, ExitCode.CONFIG)
        assert _exit("run", "-c", config) == ExitCode.STORAGE
    assert "the disk is full: make room; the same command goes on" in capsys.readouterr().err
    assert _exit("run", "-c", config) == ExitCode.OK


def _may_write_where_it_is_allowed() -> None:
    """Root may write everywhere; without this capability, which the next program does not get, where others may."""
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError("root keeps its rights")


def test_a_folder_that_may_not_be_written_is_one_line(config: Path) -> None:
    (config.parent / "runs").mkdir(mode=0o555)
    command = [sys.executable, "-m", "raypipe.cli", "pretrain", "--config", config]
    try:
        done = subprocess.run(command, preexec_fn=_may_write_where_it_is_allowed, capture_output=True, text=True)
    except subprocess.SubprocessError:
        pytest.skip("root cannot give up its rights here")
    assert done.returncode == ExitCode.STORAGE, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {config.parent / 'runs'}: not permitted: let this user read and write here")


def test_a_folder_that_anyone_may_write_is_warned_of(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "runs").mkdir()
    (config.parent / "runs").chmod(0o777)
    assert _exit("pretrain", "-c", config) == ExitCode.OK
    assert f"warning: {config.parent / 'runs'}: anyone may write there" in capsys.readouterr().out


def test_every_script_of_jobs_is_under_the_guard() -> None:
    for script in (Path(__file__).parents[1] / "jobs").glob("*.py"):
        text = script.read_text()
        assert "from raypipe.cli import main" in text or "command.run(" in text, script.name


def test_whether_a_model_is_on_the_hub(tmp_path: Path) -> None:
    assert not settings(tmp_path).needs_hub
    assert not settings(tmp_path, model__path=str(tmp_path)).needs_hub
    assert settings(tmp_path, model__path="org/name", model__revision="0" * 40).needs_hub
    assert settings(tmp_path, tune__models=(f"org/name@{'0' * 40}",)).needs_hub


WATCHED = """
import socket, sys
tried = []
def refuse(name):
    plain = getattr(socket.socket, name)
    def connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            tried.append(address)
            raise OSError("blocked")
        return plain(self, address)
    setattr(socket.socket, name, connect)
refuse("connect"); refuse("connect_ex")
def resolve(host, *more, **options):
    tried.append(host)
    raise OSError("blocked")
socket.getaddrinfo = resolve
from raypipe import cli
for command in sys.argv[2:]:
    try:
        cli.main([command, "--config", sys.argv[1]])
    except SystemExit as end:
        from huggingface_hub import constants
        print("RESULT", command, end.code, constants.HF_HUB_OFFLINE, tried)
"""
OFFLINE = ("run", "probe", "compare", "canaries")


def test_no_command_with_a_local_model_opens_a_connection(tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    config = tmp_path / "small.yaml"
    few = {"data__task_ids": ("febbre", "cefalea"), "comparison__seeds": 1, "canaries__copies": (0, 1)}
    few |= {
        "canaries__each": 1,
        "canaries__secret": "9#",
        "data__synthetic__n_unlabelled": 4,
        "probe__after": ("finetune",),
        "probe__c": (0.1,),
        "probe__folds": 2,
        "probe__layers": (1.0,),
    }
    config.write_text(configfile.dump(settings(tmp_path / "runs", model__path=str(model), **few)))
    online = {name: value for name, value in os.environ.items() if name not in process.OFFLINE}
    watched = [sys.executable, "-c", WATCHED, config, *OFFLINE]
    done = subprocess.run(watched, env=online, capture_output=True, text=True)
    ends = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert ends == [f"RESULT {command} 0 True []" for command in OFFLINE], done.stderr[-2000:]
    private = [path for path in (tmp_path / "runs").rglob("*") if path.stat().st_mode & 0o077]
    assert private == [], "files of a run are their owner's alone"


@pytest.mark.parametrize("arguments", [["show", "--note", "n1", "--config", "x"], ["preview"], []])
def test_no_job_prints_a_note(arguments: list[str]) -> None:
    """Ray keeps the log of a job."""
    job = [sys.executable, str(Path(__file__).parents[1] / "jobs/step.py"), *arguments]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.CONFIG
    assert done.stdout == ""
    assert done.stderr.startswith("error: jobs/step.py runs check, run,")
    assert done.stderr.count("\n") == 1
