"""One writer: a command that writes in a run's folder holds `lock.json` there, and a second one is refused.

Readers never ask. The file is created exclusively, which shared file systems do as one act (not all have flock), and
says who made it and since when. Its time is renewed while the command lives. A lock is dead, and taken over, if its
process is gone, which can be seen on the same machine. The lock of another machine is watched: if it is renewed, the
command is refused; if it is not for `DEAD_S`, its holder is gone. So what is tried again after a lost driver (a job of
Kubernetes, `raypipe submit --retry`) waits by itself. Nobody's clock is compared with another's, and a holder that a
file server kept waiting has as long to show itself.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.guard import ending, looking, stalls
from raypipe.guard.terminal import say
from raypipe.records import json_of
from raypipe.settings.configfile import RESOLVED

NAME = "lock.json"
BEAT_S, DEAD_S = 10.0, 120.0
LOOK_S = 1.0  # between two looks at another machine's lock

# Where runs lie in another run. A search needs no config of its own there.
_PART = re.compile(r"cells/[^/]+(/choose/[^/]+)?|variants/[^/]+|canaries")
_TRIAL = re.compile(r"tune/[^/]+/(base|(shared|trials)/[^/]+)")

Holder = dict[str, Any]
Mark = tuple[Holder | None, int]  # what a lock says, and when it was written or renewed


class TakenError(InputError):
    """Another command writes there."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it is not there. Raises `TakenError` if another command has it.

    If another machine takes it over meanwhile, because this one stood still for too long, the process ends at once.
    """
    lock, own = folder / NAME, _this_process()
    folder.mkdir(parents=True, exist_ok=True)
    _take(lock, own)
    (folder / stalls.NOTES).unlink(missing_ok=True)  # of a command before: what did not go on then may now
    try:
        with looking.every(BEAT_S, lambda: _renew(lock, own)):
            yield
    finally:
        if _read(lock) == own:
            lock.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty: something was made
            folder.rmdir()


@contextmanager
def awaited(folder: Path) -> Iterator[None]:
    """As `held`, but wait for another holder: of trials that run side by side, the first makes what they share."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder))
                break
            except TakenError:
                time.sleep(LOOK_S)
        yield


def run_of(step: Path) -> Path:
    """The run whose lock is to be held by whoever changes the folder of a step."""
    from raypipe.runs.steps import DEEPEST, is_step  # whose files import this one

    step = step.resolve()
    runs = [run for run in step.parents[:DEEPEST] if is_step(step.relative_to(run).as_posix())] or [step.parent]
    return root_of(next((run for run in runs if (run / RESOLVED).exists()), runs[-1]))


def root_of(run: Path) -> Path:
    """The outermost run: cells, variants and trials, which lie in another one, have no lock of their own."""
    for outer in run.parents:
        name = run.relative_to(outer).as_posix()
        if _TRIAL.fullmatch(name) or (_PART.fullmatch(name) and (outer / RESOLVED).exists()):
            return root_of(outer)
    return run


def _take(lock: Path, own: Holder) -> None:
    for _ in range(3):  # a dead lock, and at worst the guard of one who died removing it
        with suppress(FileExistsError):
            _create(lock, own)
            return
        mark = _mark(lock)
        if mark is not None and _is_alive(lock, mark, own):
            break
        _remove_dead(lock, mark)
    raise TakenError([Problem(str(lock.parent), f"is being written to {_who(_read(lock))}; wait until it is done")])


def _create(lock: Path, own: Holder) -> None:
    with lock.open("x") as file:
        try:
            json.dump(own, file)
            file.flush()
        except OSError:  # a full disk: an empty lock would outlive this command
            lock.unlink()
            raise


def _remove_dead(lock: Path, mark: Mark | None) -> None:
    """Of several commands that wait for a dead lock, one removes it, and none removes another's new one."""
    guard = lock.with_suffix(".guard")
    try:
        guard.open("x").close()
    except FileExistsError:
        if _age(guard) > DEAD_S:
            guard.unlink(missing_ok=True)  # its maker died within this function; the next attempt succeeds
        return
    try:
        if _mark(lock) == mark:
            lock.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _is_alive(lock: Path, mark: Mark, own: Holder) -> bool:
    holder = _read(lock)
    if holder is not None and holder.get("machine") == own["machine"]:
        return bool(_start_of(holder["pid"]) == holder["started"])
    return _is_renewed(lock, mark)  # of another machine; or just created, and not written yet


def _is_renewed(lock: Path, mark: Mark) -> bool:
    """Watch a lock: true as soon as it changes; false when it is given back, or was not renewed for `DEAD_S`."""
    end, told = time.monotonic() + DEAD_S, time.monotonic() + BEAT_S + 2 * LOOK_S
    while (seen := _mark(lock)) == mark and time.monotonic() < end:
        if time.monotonic() > told:
            say(f"{lock.parent} was last written to {_who(_read(lock))}: waiting {DEAD_S:.0f} s for a sign of life")
            told = end
        time.sleep(LOOK_S)
    return seen not in (mark, None)


def _mark(lock: Path) -> Mark | None:
    """What tells that a lock was renewed; None if it is gone. The file is read: that makes a client of NFS ask anew."""
    try:
        return _read(lock), lock.lstat().st_mtime_ns
    except FileNotFoundError:
        return None


def _age(path: Path) -> float:
    """Seconds since a file was written; 0 if it is gone. The file system's clock: the machines' may differ."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{NAME}.") as now, suppress(FileNotFoundError):
        return os.stat(now.name).st_mtime - path.lstat().st_mtime
    return 0.0


def _renew(lock: Path, own: Holder) -> None:
    with suppress(OSError):  # a file server that does not answer for a while
        holder = _read(lock)
        if holder not in (own, None):
            line = f"error: {lock.parent} was taken over {_who(holder)}: this command ends, what it finished stays"
            ending.at_once(ExitCode.PARTIAL, line)
        if lock.exists():
            os.utime(lock)
        else:
            _create(lock, own)


def _read(lock: Path) -> Holder | None:
    """Who holds the lock; None if nobody does, or if it is not written yet."""
    try:
        holder = json_of(lock)
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


def _who(holder: Holder | None) -> str:
    if holder is None:
        return "by another command"
    return f"by process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"


def _this_process() -> Holder:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    about = {"host": socket.gethostname(), "pid": pid, "since": since, "id": uuid.uuid4().hex}
    return about | {"machine": _machine(), "started": _start_of(pid)}


def _machine() -> str:
    """Where process ids mean the same: a host since it was started, and a container's own ids."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _start_of(pid: int) -> str | None:
    """When a process of this machine was started, as the kernel counts; None if there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's
    with suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] == "Z" else after_name[19]
    return "?"  # not Linux
