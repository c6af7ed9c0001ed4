"""The same with Ray: actors, tasks, workers and the node itself are killed or stopped while a command works.

Ray names its processes after what they do, so a process that does what the line says is looked for below the command.
The twin is that of the job without Ray: the same rows, to the bit, is what Ray must leave, too.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from raypipe.errors import ExitCode
from raypipe.runs import compare
from tests.chaos.jobs import JOBS, Job

LONGEST_S = 280.0  # of a command: one that waits for ever is a defect that this shows
WAIT_S = 0.5  # at most, from the sight of the process to the signal


@dataclass(frozen=True)
class RayFault:
    """`process`: what the process to strike has in its title."""

    name: str
    job: str
    words: tuple[str, ...]  # the command
    process: str
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.job} with Ray: {self.name}"

    @property
    def of(self) -> Job:
        """The job without Ray."""
        return next(job for job in JOBS if job.name == self.job)


_TRAIN = ("train", "--arm", "decselfmask")
FAULTS = (
    RayFault("actor of attribution killed", "attribution", ("attribute",), "Attribute"),
    RayFault("actor of attribution stands still", "attribution", ("attribute",), "Attribute", signal.SIGSTOP),
    RayFault("actor of masking killed", "masking", ("mask",), "(Mask"),
    RayFault("worker that holds out killed", "masking", ("mask",), "hold_out"),
    RayFault("actor of rendering killed", "training", _TRAIN, "Render"),
    RayFault("training worker killed", "training", _TRAIN, "TrainWorker"),
    RayFault("actor of scoring killed", "evaluation", ("evaluate", "--arm", "decselfmask"), "Score"),
    RayFault("node lost", "masking", ("mask",), "raylet/raylet"),
    RayFault("node lost", "training", _TRAIN, "raylet/raylet"),
    RayFault("head lost", "attribution", ("attribute",), "gcs_server"),
    RayFault("task of an arm killed", "comparison", ("compare",), f"ray::{compare._learn.__name__}"),
    RayFault("command killed", "comparison", ("compare",), "raypipe.cli"),
    RayFault("second job", "attribution", ("attribute",), ""),
)
# A command goes on by itself, or says that it must be started again
ENDS = {ExitCode.OK, ExitCode.PARTIAL, ExitCode.CLUSTER, -signal.SIGKILL}


def start(fault: RayFault, config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Begin the command, in a session of its own."""
    command = [sys.executable, "-m", "raypipe.cli", *fault.words, "--config", str(config)]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def strike(fault: RayFault, process: subprocess.Popen[bytes], dice: random.Random) -> bool:
    """Send the signal to the first process with that title, soon after it is seen; False if the command ended first."""
    while process.poll() is None:
        for found in _below(process.pid):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if fault.process in " ".join(found.cmdline()):
                    time.sleep(dice.uniform(0, WAIT_S))
                    os.kill(found.pid, fault.signal)
                    return True
        time.sleep(0.02)
    return False


def ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None if the command had to be ended. Nothing of it is left behind."""
    session = [process.pid, *(found.pid for found in _below(process.pid))]
    try:
        return process.wait(LONGEST_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for pid in session:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(pid)
        yield own
        yield from own.children(recursive=True)
