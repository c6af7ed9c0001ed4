"""A process that waits for what does not come ends, as if it had been killed: what goes on after a kill goes on then.

Ray Data has a limit of its own for its streams. This one is for whatever else works: a command without Ray, a task of a
comparison, a trial, a training worker. A dead file server, a lost peer and a lock that nobody gives back all show in
the same way: the thread that works gets no time of a CPU. (Loops without end do; see limits.py.)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raypipe.errors import ExitCode
from raypipe.guard import looking
from raypipe.guard.terminal import say

CHECKS = 20  # within the limit: a process that was stopped as a whole, and its clock with it, misses one of them
LEAST_S = 1e-3  # of a CPU, between two checks, is a sign of life


@contextmanager
def ended_after(limit_s: float, what: str) -> Iterator[None]:
    """End this process if the calling thread, in this block, gets no time of a CPU for `limit_s`. `what`: its work."""
    clock = time.pthread_getcpuclockid(threading.get_ident())
    used, quiet = time.clock_gettime(clock), 0

    def look() -> None:
        nonlocal used, quiet
        now = time.clock_gettime(clock)
        quiet = 0 if now - used > LEAST_S else quiet + 1
        used = now
        if quiet == CHECKS:
            fix = "see what it waits for, or raise resources.no_progress_timeout_s"
            say(f"error: {what}: no progress for {limit_s:g} s: {fix}; the same command goes on", is_error=True)
            os._exit(ExitCode.PARTIAL)  # nothing in this process can be trusted to end

    with looking.every(limit_s / CHECKS, look):  # it ends with the block, or would ask for the time of a thread gone
        yield
