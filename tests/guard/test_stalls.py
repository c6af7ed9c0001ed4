"""A process whose thread gets no CPU ends with a documented code; one that works, or is done, does not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raypipe.errors import ExitCode, InputError
from raypipe.guard import stalls
from raypipe.runs import lock

PROGRAM = """
import threading, time
from raypipe.guard import stalls

def work():
    with stalls.ended_after(0.5, "mask"):
        {inside}

for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
time.sleep(1)  # the limit is for what is inside
print("done")
"""
SLOW = "end = time.thread_time() + 1\n        while time.thread_time() < end: pass"


@pytest.mark.parametrize("inside", ["threading.Event().wait()", "time.sleep(3600)", SLOW, "pass"])
def test_only_what_waits_is_ended(inside: str) -> None:
    program = [sys.executable, "-c", PROGRAM.format(inside=inside)]
    ended = subprocess.run(program, text=True, capture_output=True, timeout=60)
    if inside in (SLOW, "pass"):
        assert (ended.returncode, ended.stdout) == (0, "done\n")
    else:
        assert ended.returncode == ExitCode.PARTIAL
        assert ended.stdout == ""
        assert ended.stderr.startswith("error: mask: no progress for 0.5 s: see what it waits for, or raise ")
        assert ended.stderr.count("\n") == 1


WAITING = PROGRAM.format(inside="threading.Event().wait()")


@pytest.mark.parametrize("stderr", ["full disk", "reader gone", "nobody reads"])
def test_it_is_ended_also_if_nobody_can_be_told(stderr: str) -> None:
    read, write = os.pipe()
    program = WAITING
    if stderr == "full disk":
        write = os.open("/dev/full", os.O_WRONLY)
    elif stderr == "reader gone":
        os.close(read)
    else:  # as a disk that does not answer: to write is to wait. (`less` looks the same, and would be no stall)
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4096))
        os.set_blocking(write, True)
        program = f"from raypipe.guard import ending, stalls\nending.GRACE_S, stalls.is_paused = 0.2, bool\n{WAITING}"
    ended = subprocess.run([sys.executable, "-c", program], stderr=write, stdout=subprocess.DEVNULL, timeout=60)
    assert ended.returncode == ExitCode.PARTIAL


def test_work_that_was_ended_fails_at_once_when_it_is_begun_again(tmp_path: Path) -> None:
    """As Ray does it, whose workers nobody hears; another work does not."""
    notes = tmp_path / stalls.NOTES
    program = WAITING.replace('"mask"', f'"mask", [Path({str(tmp_path)!r})], Path({str(notes)!r})')
    ended = subprocess.run([sys.executable, "-c", f"from pathlib import Path\n{program}"], timeout=60)
    assert ended.returncode == ExitCode.PARTIAL
    begun_again = stalls.ended_after(60, "mask", [tmp_path], notes)
    with pytest.raises(InputError, match=r"^mask: no progress for 0\.5 s: see what it waits for") as again, begun_again:
        pass
    assert again.value.exit_code == ExitCode.PARTIAL
    for what, folder in (("mask", tmp_path / "other"), ("train", tmp_path)):
        with stalls.ended_after(60, what, [folder], notes):
            pass
    with lock.held(tmp_path), stalls.ended_after(60, "mask", [tmp_path], notes):
        pass  # the next command


@contextmanager
def _waiting(work: Any = None) -> Iterator[int]:
    """A thread that waits, in a function of ours or of whoever calls `work`; its number."""
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait()

    thread = threading.Thread(target=work or wait, args=(wait,) if work else ())
    thread.start()
    inside.wait()
    yield thread.ident or 0
    leave.set()
    thread.join()


def test_files_that_change_are_a_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with _waiting() as thread:
        signs = stalls.Signs(thread, [tmp_path, tmp_path / "not there"])
        assert not signs.seen()
        (tmp_path / "checkpoint" / "weights").write_bytes(b"ab")
        assert signs.seen()
        assert not signs.seen()
        with (tmp_path / "checkpoint" / "weights").open("ab") as file:
            file.write(b"c")
        assert signs.seen()
        (tmp_path / "checkpoint" / "weights").unlink()
        assert signs.seen()


def test_a_disk_that_does_not_answer_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = threading.Event()
    with _waiting() as thread:
        signs = stalls.Signs(thread, [tmp_path])
        monkeypatch.setattr(stalls.limits, "LIMIT_S", 0.1)
        monkeypatch.setattr(stalls.os, "walk", lambda _: dead.wait())
        assert not signs.seen()
        dead.set()


def _module(name: str) -> Any:
    """A module whose function `call` calls what it gets."""
    module = ModuleType(name)
    exec("def call(work): work()", module.__dict__)
    return module


def test_waiting_for_workers_is_none_of_ours_but_what_ray_calls_is() -> None:
    ray, ours = _module("ray.worker"), _module("raypipe.rows")
    with _waiting(ray.call) as thread:
        assert stalls.Signs(thread).seen()
    with _waiting(lambda wait: ray.call(lambda: ours.call(wait))) as thread:
        assert not stalls.Signs(thread).seen()


def test_whoever_pages_our_lines_may_take_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with _waiting() as thread:
        monkeypatch.setattr(stalls, "is_paused", lambda: True)
        assert stalls.Signs(thread).seen()
