"""Whatever a command raises: lines without note text, and a documented exit code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from raypipe.errors import ExitCode, InputError, Problem, QuietError
from raypipe.guard import command, process

CANARY = "Mario Rossi, nato a Pavia"


def _raise(error: BaseException) -> None:
    raise error


def _chained() -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        raise ValueError(f"cannot read {CANARY}") from error


class SafetensorError(Exception):
    """As the library's: its disk errors come as text."""


class Lost(Exception):
    """As Ray's errors: the class is the library's, and an error of a worker hangs on it."""

    __module__ = "ray.exceptions"

    worker_failures: dict[int, Exception] | None = None

    def __init__(self, cause: Exception | None) -> None:
        self.cause = cause
        super().__init__(CANARY)


UNEXPECTED = [
    lambda: _raise(ValueError(CANARY)),
    lambda: _raise(UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY)),
    lambda: _raise(FileNotFoundError(errno.ENOENT, "no such file", CANARY)),
    lambda: _raise(ExceptionGroup(CANARY, [ValueError(CANARY)])),
    lambda: _raise(SystemExit(CANARY)),
    lambda: _raise(RecursionError(CANARY)),
    _chained,
]


@pytest.mark.parametrize("work", UNEXPECTED)
@pytest.mark.parametrize("more", ["", "1"])
def test_an_unexpected_error_is_told_without_its_message(work, more, capsys, monkeypatch):
    monkeypatch.setenv(command.TRACEBACK, more)
    assert command.run(work) == ExitCode.DEFECT
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert "Traceback" not in err
    if not more:
        assert err.count("\n") == 1


def test_how_to_see_more(capsys, monkeypatch):
    command.run(_chained)
    line = capsys.readouterr().err
    assert line.startswith("error: ValueError at raypipe/guard/command.py:"), "the innermost line of ours"
    assert f"; what is finished stays; {command.TRACEBACK}=1" in line
    monkeypatch.setenv(command.TRACEBACK, "1")
    command.run(_chained)
    lines = capsys.readouterr().err.splitlines()
    assert "builtins.KeyError" in lines, "what it was raised from"
    assert any(line.startswith(f"  {__file__}:") and line.endswith(" _chained") for line in lines)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG]
)
@pytest.mark.parametrize("in_rust", [False, True])
def test_trouble_with_the_disk_is_a_line_with_its_fix(number, in_rust, tmp_path, capsys):
    path = str(tmp_path / CANARY)
    failure = SafetensorError(f"{CANARY} (os error {number})") if in_rust else OSError(number, CANARY, path)
    assert command.run(lambda: _raise(failure)) == ExitCode.STORAGE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert errno.errorcode[number] in err
    assert "the same command goes on" in err
    assert CANARY not in err
    assert (str(tmp_path) in err) is not in_rust, "the part that is there"


class OutOfMemoryError(RuntimeError):
    """As torch's, of a GPU."""


class ExecutionTimeoutError(Exception):
    """As Ray Data's."""


def test_a_stream_of_slow_blocks_is_a_line_with_its_fix(capsys):
    assert command.run(lambda: _raise(ExecutionTimeoutError(CANARY))) == ExitCode.PARTIAL
    err = capsys.readouterr().err
    assert "lower resources.rows_per_block" in err
    assert err.count("\n") == 1
    assert CANARY not in err


@pytest.mark.parametrize("failure", [MemoryError(CANARY), OutOfMemoryError(CANARY)])
def test_out_of_memory_is_a_line_with_its_fix(failure, capsys):
    assert command.run(lambda: _raise(failure)) == ExitCode.PARTIAL
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory: ")
    assert "the same command goes on" in err
    assert err.count("\n") == 1
    assert CANARY not in err


def test_every_problem_of_the_input_is_a_line(capsys):
    problems = [Problem("a.yaml:1", "one"), Problem("b", "two")]
    assert command.run(lambda: _raise(InputError(problems, ExitCode.DATA))) == ExitCode.DATA
    assert capsys.readouterr().err == "error: a.yaml:1: one\nerror: b: two\n"


def test_a_problem_that_quotes_several_lines_is_one(capsys):
    assert command.run(lambda: _raise(InputError([Problem("name", "not a\nb\r\nc")]))) == ExitCode.CONFIG
    assert capsys.readouterr().err == "error: name: not a b c\n"


def test_what_a_worker_said_of_its_failure_is_told(capsys):
    stage = QuietError("stage Mask: KeyError at raypipe/masking/masker.py:9")
    assert command.run(lambda: _raise(Lost(stage))) == ExitCode.DEFECT
    assert "error: stage Mask: KeyError at raypipe/masking/masker.py:9" in capsys.readouterr().err
    assert command.run(lambda: _raise(Lost(InputError("no tensor", ExitCode.CONFIG)))) == ExitCode.CONFIG
    of_train = Lost(None)
    of_train.worker_failures = {0: Lost(stage)}
    assert command.run(lambda: _raise(of_train)) == ExitCode.DEFECT
    assert capsys.readouterr().err.count("stage Mask: KeyError at") == 1
    assert command.run(lambda: _raise(Lost(None))) == ExitCode.PARTIAL
    assert CANARY not in capsys.readouterr().err


def test_threads_and_logs_hold_no_message_either(capsys, caplog):
    def work() -> None:
        thread = threading.Thread(target=_chained)
        thread.start()
        thread.join()
        log = logging.getLogger("of a library")
        try:
            _chained()
        except ValueError as error:
            log.exception("failed")
            log.error("failed: %s", error)
            log.error(error)

    # pytest has a hook of its own for threads; protect sets ours again
    assert command.run(work) == ExitCode.OK
    assert CANARY not in capsys.readouterr().err + caplog.text
    assert caplog.text.count("ValueError at") == 3


ENDLESS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from raypipe.guard import command, ending
ending.GRACE_S = 0.2
forever = threading.Event()
def work():
    with ThreadPoolExecutor(1) as pool:  # whose end waits for its threads
        held = pool.submit(forever.wait)
        print("ready", flush=True)
        forever.wait()
def simple():
    print("ready", flush=True)
    forever.wait()
sys.exit(command.run({work}))
"""


@pytest.mark.parametrize("work", ["work", "simple"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_a_line(work, number, code):
    script = ENDLESS.format(work=work)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip() == "stopped: what is finished stays, and the same command goes on where it stopped"


def test_a_library_that_takes_signals_does_not_keep_them():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("ours"))
    with command.keeping_signals():
        signal.signal(signal.SIGTERM, lambda *_: seen.append("the library's"))
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert seen == ["ours"]


def test_a_package_below_its_floor_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(process.importlib.metadata, "version", lambda name: "0.0.1")
    assert command.run(lambda: None) == ExitCode.CONFIG
    assert "error: torch: 0.0.1 is installed, but >=2.10 is needed" in capsys.readouterr().err


def test_a_package_that_is_not_there_is_refused(monkeypatch, capsys):
    def version(name):
        if name == "captum":
            raise process.importlib.metadata.PackageNotFoundError(name)
        return "9999"

    monkeypatch.setattr(process.importlib.metadata, "version", version)
    assert command.run(lambda: None) == ExitCode.CONFIG
    assert capsys.readouterr().err == "error: captum: is not installed, but >=0.8 is needed\n"


CODES = """
import sys
from raypipe.errors import InputError
from raypipe.guard import command
def refuse():
    raise InputError("wrong")
def defect():
    raise ValueError
def listing():
    for _ in range(1000):
        command.say("a line")
sys.exit(command.run({work}))
"""


@pytest.mark.parametrize("reader", ["gone", "full disk"])
@pytest.mark.parametrize(
    ("work", "stream", "code"),
    [
        ("refuse", "stderr", {ExitCode.CONFIG}),
        ("defect", "stderr", {ExitCode.DEFECT}),
        ("listing", "stderr", {ExitCode.OK}),
        ("listing", "stdout", {128 + signal.SIGPIPE, ExitCode.STORAGE}),
    ],
)
def test_the_exit_code_stays_if_nobody_can_be_told(work, stream, code, reader):
    if reader == "gone":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: write}
    assert subprocess.run([sys.executable, "-c", CODES.format(work=work)], **streams).returncode in code
    os.close(write)
