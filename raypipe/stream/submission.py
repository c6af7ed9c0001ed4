"""`raypipe submit`: a job on a cluster, followed until it ends.

Ray's client of jobs takes the token from the environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH). What
the job prints passes `say`. That the cluster asks for a token, the job itself proves before it reads a note
(cluster.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from raypipe.errors import ExitCode, InputError
from raypipe.guard.terminal import say

VARIABLES = ("RAYPIPE_DATA", "RAYPIPE_MODELS", "RAYPIPE_PRETRAINED")  # of this environment, given to the job
RECONNECT_S = 60.0
POLL_S = 2.0
STOPPED = 128 + 15  # as a shell counts what SIGTERM ended
_MAX_MESSAGE = 200  # characters
_LOST = (OSError, RuntimeError, aiohttp.ClientError)  # as Ray's client and its libraries raise it


class Client(Protocol):
    """What is used of Ray's JobSubmissionClient."""

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]) -> str: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...


@dataclass(frozen=True)
class Order:
    """What is submitted."""

    entrypoint: str  # a line for a shell
    working_dir: str
    address: str

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Of the job and its workers."""
        given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
        return {"working_dir": self.working_dir, "env_vars": given}


@dataclass
class Log:
    """The job's lines, each printed once: after a lost connection Ray sends all of them again."""

    _printed: int = 0
    _n: int = 0
    _open: str = field(default="")

    def begin(self) -> None:
        """What comes next is the log's beginning."""
        self._n, self._open = 0, ""

    def read(self, chunk: str) -> None:
        """Print the lines that end in this chunk."""
        *lines, self._open = (self._open + chunk).split("\n")
        for line in lines:
            self._line(line)

    def end(self) -> None:
        """Print a last line that has no end."""
        if self._open:
            self._line(self._open)
            self._open = ""

    def _line(self, line: str) -> None:
        self._n += 1
        if self._n > self._printed:
            say(line)
            self._printed = self._n


def connected(address: str) -> Client:
    """Ray's client of the cluster at `address`. Raises what it raises, or `InputError`: address, token."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):  # Ray would import the module that another scheme names
        raise InputError("--address: must look like http://HEAD:8265", ExitCode.CLUSTER)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray would take them before the one that is named
        os.environ.pop(name, None)
    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        what = "the cluster refuses this client: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to its head's token"
    raise InputError(what, ExitCode.CLUSTER)


def run(
    order: Order,
    retries: int,
    connect: Callable[[str], Client] = connected,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Submit, print the log, and return the job's exit code.

    After a lost connection it connects again, `retries` times at most, and goes on with the job, or submits it once
    more if it was lost with its head or node. Raises `InputError` (exit code 5) when there is no way on.
    """
    job, log, was_submitted = _new_id(), Log(), False
    for left in range(retries, -1, -1):
        try:
            client = connect(order.address)
            if _info(client, job) is None:
                if was_submitted:
                    say("the job is lost; submitted again: it waits for the lock that the lost one left")
                    log = Log()
                was_submitted = True
                client.submit_job(entrypoint=order.entrypoint, submission_id=job, runtime_env=order.runtime_env)
                say(f"submitted {job}")
            details = _followed(client, job, log, pause)
            if (code := _exit_code(details)) is not None:
                return code
            why, job = _first_line(details.message), _new_id()  # ended without an end of its own
        except _LOST as error:
            why = f"{type(error).__name__}: {_first_line(error)}"
        except BaseException:  # such as a signal, which ends this command alone
            if was_submitted:
                say(f"{job} goes on: `ray job stop --address {order.address} {job}` ends it", is_error=True)
            raise
        if left:
            say(f"lost ({why}); connecting again in {RECONNECT_S:.0f} s, {left} more", is_error=True)
            pause(RECONNECT_S)
    if was_submitted:
        what = (
            f"{order.address} lost the job or the connection ({why}): the same command goes on where it stopped, and "
        )
        what += "with --retry N by itself"
    else:
        what = f"{order.address} cannot be reached ({why}): is the cluster up, and this the address of its jobs?"
    raise InputError(what, ExitCode.CLUSTER)


def _new_id() -> str:
    return f"raypipe-{secrets.token_hex(6)}"


def _info(client: Client, job: str) -> Any:
    """What the cluster says of the job; None if it does not know it."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise


def _followed(client: Client, job: str, log: Log, pause: Callable[[float], None]) -> Any:
    """Print the log until the job has ended; what the cluster says of it then."""
    while True:
        asyncio.run(_tail(client, job, log))
        details = client.get_job_info(job)
        if details.status in ("SUCCEEDED", "FAILED", "STOPPED"):
            log.end()
            return details
        pause(POLL_S)


async def _tail(client: Client, job: str, log: Log) -> None:
    log.begin()
    async for chunk in client.tail_job_logs(job):
        log.read(chunk)


def _exit_code(details: Any) -> int | None:
    """As the job's process ended; None if it went down with its node."""
    if details.status == "SUCCEEDED":
        return ExitCode.OK
    if details.status == "STOPPED":
        return STOPPED
    code = details.driver_exit_code
    return 128 - code if code is not None and code < 0 else code


def _first_line(message: object) -> str:
    return next(iter(str(message or "no reason given").splitlines()), "")[:_MAX_MESSAGE].rstrip(".")
