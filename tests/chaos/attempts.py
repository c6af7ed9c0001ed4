"""One attempt at a job, in a forked process: whatever happens to it leaves this one as it was."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from raypipe.guard import command
from tests.chaos.faults import CPU, Events, Fault
from tests.chaos.jobs import Job


@dataclass(frozen=True)
class Moment:
    """When a fault strikes: the event of a kind, counted from 1; of CPU, microseconds."""

    kind: str
    at: int


@dataclass(frozen=True)
class Attempt:
    """A process at work on a job. Its files: `log`, what it printed; `facts`, what it met."""

    pid: int
    log: Path
    facts: Path

    def ended(self) -> int:
        """Wait for its end: the exit code, or less than 0 for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def is_alive(self) -> bool:
        """Is it still at work? Leaves its exit code for `ended`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def struck(self) -> str | None:
        """Where the fault struck; None if it did not."""
        met = self.facts.read_text() if self.facts.exists() else ""
        return met or None

    @property
    def counts(self) -> dict[str, int]:
        """Events of each kind in an attempt that nothing disturbed, and its CPU time in microseconds."""
        return dict(json.loads(self.facts.read_text()))


def start(job: Job, config: Path, runs: Path, fault: Fault | None = None, moment: Moment | None = None) -> Attempt:
    """Begin an attempt. The process that calls has no threads: a fork would lose them."""
    number = len(list(config.parent.glob("*.log")))
    attempt = Attempt(0, config.parent / f"{number}.log", config.parent / f"{number}.facts")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = _work(job, config, runs, fault, moment, attempt)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return Attempt(pid, attempt.log, attempt.facts)


def _work(job: Job, config: Path, runs: Path, fault: Fault | None, moment: Moment | None, attempt: Attempt) -> int:
    out = os.open(attempt.log, os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    events = Events(runs, job.stages, moment.kind if moment else "", moment.at if moment else 0)
    met = os.open(attempt.facts, os.O_WRONLY | os.O_CREAT)

    def strike(what: str) -> None:
        if fault is not None:
            os.write(met, what.encode())
            fault.strike(runs)

    events.strike = strike
    if moment is not None and moment.kind == CPU:  # as SIGKILL: there is no handler, and so no last word
        os.write(met, CPU.encode())
        signal.setitimer(signal.ITIMER_PROF, moment.at / 1e6)
    before = os.times()
    code = command.run(lambda: job.work(config))
    after = os.times()
    if moment is None:
        spent = after.user + after.system - before.user - before.system
        os.write(met, json.dumps(dict(events.counts) | {CPU: int(spent * 1e6)}).encode())
    elif moment.kind == CPU:
        os.truncate(attempt.facts, 0)  # it was done before
    return int(code)
