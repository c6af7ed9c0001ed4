"""A process that waits for what does not come ends, as if it had been killed: what goes on after a kill goes on then.

Whatever works has this limit: a command, a task of a comparison, a trial, a training worker. A dead file server, a lost
peer and a lock that nobody gives back all show in the same way: the thread that works gets no time of a CPU, and no
file of its work changes. (Files, because workers also wait for the one that writes a checkpoint for all.)

Three things have no limit here. A thread that waits inside of Ray waits for workers: those have this one, Ray Data has
one of its own (not for streams with a shuffle), and a cluster without room makes everybody wait. A worker on a GPU that
waits for a lost peer keeps a CPU busy: Ray Train's process group gives up after 30 minutes. And a loop without end
works (see limits.py).

Ray shows nobody the lines of a worker, and begins a task again whose worker died. So a worker also leaves its line in
a file of the run. Whoever begins the same work again, under the same command, reads it there and fails with it at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.guard import ending, limits, looking
from raypipe.guard.terminal import is_paused

CHECKS = 20  # within the limit: a process that was stopped as a whole, and its clock with it, misses one of them
NOTES = "stalled.jsonl"  # in a run's folder: work that was ended under the command that has the lock
LEAST_S = 1e-3  # of a CPU, between two checks, is a sign of life

State = tuple[str, int, int]  # of a file: its path, its size, and when it was written


@contextmanager
def ended_after(limit_s: float, what: str, folders: Sequence[Path] = (), notes: Path | None = None) -> Iterator[None]:
    """End this process if nothing is seen, for `limit_s`, of what the calling thread does in this block.

    `what`: its work. `folders`: what it is written to, by this process or by those that it waits for. `notes`: where it
    is noted. Raises `InputError` if this work is among the notes.
    """
    work = [what, *map(str, folders)]
    if notes is not None and (problem := _noted(notes, work)) is not None:
        raise InputError([problem], ExitCode.PARTIAL)
    signs, quiet = Signs(threading.get_ident(), folders), 0

    def look() -> None:
        nonlocal quiet
        quiet = 0 if signs.seen() else quiet + 1
        if quiet == CHECKS:
            fix = "see what it waits for, or raise resources.no_progress_timeout_s"
            problem = Problem(what, f"no progress for {limit_s:g} s: {fix}; the same command goes on")
            if notes is not None:
                _note(notes, work, problem)
            ending.at_once(ExitCode.PARTIAL, f"error: {problem}")

    with looking.every(limit_s / CHECKS, look):  # it ends with the block, or would ask for the time of a thread gone
        yield


def _note(notes: Path, work: list[str], problem: Problem) -> None:
    """If the disk answers: it may be what the work waits for."""

    def write() -> None:
        with notes.open("a") as file:
            file.write(json.dumps([work, problem.where, problem.what]) + "\n")

    with suppress(OSError, TimeoutError):
        limits.within_limit(write)


def _noted(notes: Path, work: list[str]) -> Problem | None:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return next((Problem(where, what) for of, where, what in map(json.loads, lines) if of == work), None)


class Signs:
    """Signs of life of a thread, since they were last looked for."""

    def __init__(self, thread: int, folders: Sequence[Path] = ()) -> None:
        self.thread, self.clock, self.folders = thread, time.pthread_getcpuclockid(thread), folders
        self.used, self.files = time.clock_gettime(self.clock), set[State]()
        self.files = self._files()

    def seen(self) -> bool:
        """Did it work, or does it wait for whoever reads its lines, or for workers?"""
        used, files = time.clock_gettime(self.clock), self._files()
        has_worked = used - self.used > LEAST_S or files != self.files
        self.used, self.files = used, files
        return has_worked or is_paused() or _is_in_ray(self.thread)

    def _files(self) -> set[State]:
        """All files as they are; as they were before if the disk does not answer."""
        try:
            return limits.within_limit(lambda: {state for folder in self.folders for state in _states(folder)})
        except TimeoutError:
            return self.files


def _states(folder: Path) -> Iterator[State]:
    for inside, _, names in os.walk(folder):
        for path in (os.path.join(inside, name) for name in names):
            with suppress(OSError):  # it has gone
                status = os.lstat(path)
                yield path, status.st_size, status.st_mtime_ns


def _is_in_ray(thread: int) -> bool:
    """Was Ray called last, and not we by Ray?"""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in ("ray", "raypipe"):
            return package == "ray"
        frame = frame.f_back
    return False
