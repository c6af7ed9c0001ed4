"""A process whose thread gets no CPU ends with a documented code; one that works, or is done, does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raypipe.errors import ExitCode

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
