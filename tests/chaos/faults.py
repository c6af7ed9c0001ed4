"""The faults, a line each: what happens, where it can strike, and which exit codes the struck command may have.

Python tells of each file that it opens, renames or deletes (sys.addaudithook), in the thread that does it and before it
is done; calls of the package's own stages are told in the same way. So a fault is a function that is called at the n-th
such event of its kind, and may kill, wait or raise there: what is disturbed is not changed for it. What libraries in
other languages write, they do between such events; there, kills after a drawn amount of CPU time strike.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from raypipe.errors import ExitCode

# Kinds of events
WRITE, READ, RENAME, DELETE, STAGE, CPU, START, AFTER = (
    "a file is opened to write", "a file is opened to read", "a file is renamed", "something is deleted",
    "a stage works", "any moment", "the start", "the end",
)  # fmt: skip
EVENTS = {"os.rename": RENAME, "os.remove": DELETE, "os.rmdir": DELETE, "shutil.rmtree": DELETE}
OURS = "chaos.stage"
STAGES = {
    "attribution": ("raypipe.attribution.engine", "AttributionEngine.attribute"),
    "masking": ("raypipe.masking.masker", "Masker.plans"),
    "rendering": ("raypipe.stream.stages.render", "rows_of"),
    "scoring": ("raypipe.evaluation.scoring", "LabelScorer.score"),
    "optimiser step": ("raypipe.training.loop", "_step"),
    "checkpoint": ("raypipe.training.checkpoint", "save"),
}
KILLED = {-signal.SIGKILL, -signal.SIGPROF}


@dataclass(frozen=True)
class Fault:
    """`strike` is called in the job's process at the drawn event, with the folder of runs; of AFTER, with a file."""

    name: str
    where: tuple[str, ...]
    strike: Callable[[Path], object]
    ends: frozenset[int]  # exit codes of the struck attempt


def _kill(runs: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(runs: Path) -> None:
    time.sleep(1e6)


def _raise(error: BaseException) -> Callable[[Path], None]:
    def strike(runs: Path) -> None:
        raise error

    return strike


def _stop(runs: Path) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _small_files(runs: Path) -> None:
    """From now on this process can write small files only; libraries in C and Rust meet it, too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _jump(days: float) -> Callable[[Path], None]:
    """The clock is wrong from here on, and what was written before has times of the other clock."""

    def strike(runs: Path) -> None:
        real, shift = time.time, days * 86_400
        time.time = lambda: real() + shift  # type: ignore[assignment]
        for path in runs.rglob("*"):
            status = path.stat()
            os.utime(path, (status.st_atime - shift, status.st_mtime - shift))

    return strike


def _flip(path: Path) -> None:
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


_DISK, _NONE = frozenset({int(ExitCode.STORAGE)}), frozenset({0})
FAULTS = (
    Fault("SIGKILL", (CPU, WRITE, RENAME, DELETE, STAGE), _kill, frozenset(KILLED)),
    Fault("SIGTERM", (STAGE,), _stop, frozenset({128 + signal.SIGTERM})),
    Fault("hangs", (STAGE,), _hang, frozenset({int(ExitCode.PARTIAL)})),
    Fault("out of memory", (STAGE,), _raise(MemoryError()), frozenset({int(ExitCode.PARTIAL)})),
    Fault("disk full", (WRITE,), _raise(OSError(errno.ENOSPC, "no space")), _DISK),
    Fault("disk fails", (WRITE, RENAME, READ), _raise(OSError(errno.EIO, "failed")), _DISK),
    Fault("file server gone", (READ, RENAME), _raise(OSError(errno.ESTALE, "stale")), _DISK),
    Fault("limit of file size", (STAGE,), _small_files, _DISK),
    Fault("clock a year ahead", (STAGE, RENAME), _jump(365), _NONE),
    Fault("clock a day behind", (STAGE, RENAME), _jump(-1), _NONE),
    Fault("output cut", (AFTER,), lambda path: os.truncate(path, path.stat().st_size // 2), _NONE),
    Fault("bit flipped", (AFTER,), _flip, _NONE),
    Fault("output deleted", (AFTER,), Path.unlink, _NONE),
    Fault("output doubled", (AFTER,), lambda path: shutil.copy(path, path.with_stem("again")), _NONE),
    Fault("second job", (START,), lambda runs: None, _NONE),
)


class Events:
    """Counts the events below a folder, and calls `strike` at number `at` (from 1) of one kind."""

    def __init__(self, runs: Path, stages: tuple[str, ...], kind: str = "", at: int = 0) -> None:
        self.runs, self.kind, self.at = str(runs), kind, at
        self.counts: Counter[str] = Counter()
        self.strike: Callable[[str], object] = lambda what: None
        for name in stages:
            _announce(name)
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        kind = self._kind(event, args)
        if kind is None:
            return
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.at:
            self.strike(str(args[0]).removeprefix(self.runs))

    def _kind(self, event: str, args: tuple[Any, ...]) -> str | None:
        if event == OURS:
            return STAGE
        if event != "open" and event not in EVENTS:
            return None
        path = args[0]
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.runs):
            return None
        if "lock.json" in os.fspath(path):  # whoever loses the lock ends: tests/runs/test_lock.py
            return None
        if event == "open":
            return WRITE if args[2] & (os.O_WRONLY | os.O_RDWR) else READ
        return EVENTS[event]


def _announce(name: str) -> None:
    """Let a stage tell the audit hooks that it is called."""
    module, path = STAGES[name]
    *outer, last = path.split(".")
    owner: Any = import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    work = getattr(owner, last)

    @wraps(work)
    def announced(*args: Any, **kwargs: Any) -> Any:
        sys.audit(OURS, name)
        return work(*args, **kwargs)

    setattr(owner, last, announced)
