"""What every process does first, on every machine: the driver, and through Ray's hook each actor and task (cluster.py).

Imports nothing heavy, because it runs in every worker, and before the libraries read their environment.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import resource
import sys
import sysconfig
import threading
import warnings
from typing import Any

from packaging.requirements import Requirement

from raypipe.errors import InputError, Problem
from raypipe.guard.quiet import NOWHERE, is_own, place, without_text
from raypipe.guard.terminal import say

# No connection is opened by a library. A hub id in the config is the one allowance: `allow_hub`.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_OF_THE_USER = {name: os.environ[name] for name in OFFLINE if name in os.environ}
NO_TELEMETRY = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
NO_TELEMETRY |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads them
# Ray would unpickle what a Parquet file says of its columns (CVE-2026-41486)
NO_PICKLE = {"RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "0"}


def protect() -> None:
    """Files for their owner alone, no core dumps, no connections, no exception with its message in a log."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.environ.update(OFFLINE | NO_TELEMETRY | NO_PICKLE)
    _tell_hub()
    warnings.simplefilter("ignore")  # of libraries: they may quote what they warn of
    sys.excepthook = lambda kind, error, trace: say(f"error: {without_text(error)}", is_error=True)
    sys.unraisablehook = lambda ignored: None  # what could not be closed at the end; nobody can act on it
    threading.excepthook = _in_thread
    logging.setLogRecordFactory(QuietRecord)


def protect_with_hub() -> None:
    """The same, for a model that has a hub id: it may have to be fetched."""
    protect()
    allow_hub()


def allow_hub() -> None:
    """Lift the block again; what the user has set stays set."""
    for name in OFFLINE:
        os.environ.pop(name, None)
    os.environ.update(_OF_THE_USER)
    _tell_hub()


def _tell_hub() -> None:
    """huggingface_hub reads the environment when it is imported, which a program may have done before it calls us."""
    if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
        is_offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE", "")
        vars(constants).update(HF_HUB_OFFLINE=is_offline.upper() in _TRUE, HF_HUB_DISABLE_TELEMETRY=True)


class QuietRecord(logging.LogRecord):
    """A log record without messages of exceptions.

    A library's may quote one anywhere: in its format, deep in a value, or in a text that it made of both. So its record
    is the line that wrote it. In others (ours, and those of a program that calls us), an exception is its type and
    place.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if _is_of_library(self.pathname):
            self.msg, self.args = f"{self.levelname} of {self.name} at {self.filename}:{self.lineno}", None
        if isinstance(self.args, tuple):
            self.args = tuple(_said(value) for value in self.args)
        self.msg = _said(self.msg)
        if self.exc_info and self.exc_info[1] is not None:
            self.msg = f"{self.getMessage()} ({_said(self.exc_info[1])})"
            self.args = None
        self.exc_info = self.exc_text = None


def _is_of_library(file: str) -> bool:
    """Python's own and all that is installed, but for this package."""
    is_installed = file.startswith(sysconfig.get_path("stdlib")) or "-packages/" in file  # site-, and Debian's dist-
    return is_installed and not is_own(file)


def _said(value: Any) -> Any:
    return str(without_text(value)) if isinstance(value, BaseException) else value


def _in_thread(failed: threading.ExceptHookArgs) -> None:
    """Threads of libraries that are interrupted while they wait (Ray Data's) say nothing that a user could act on."""
    if place(failed.exc_traceback) != NOWHERE and not isinstance(failed.exc_value, SystemExit | None):
        say(f"error: {without_text(failed.exc_value)}", is_error=True)


def demand_floors() -> None:
    """The lower bounds of pyproject.toml are security floors. Raises `InputError` with every package below its own."""
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("raypipe") or ()]
    except importlib.metadata.PackageNotFoundError:  # run from a folder that was never installed
        return
    problems = []
    for needed in requirements:
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            try:
                version = importlib.metadata.version(needed.name)
            except importlib.metadata.PackageNotFoundError:
                problems.append(Problem(needed.name, f"is not installed, but {needed.specifier} is needed"))
                continue
            if not needed.specifier.contains(version, prereleases=True):
                what = f"{version} is installed, but {needed.specifier} is needed: older ones have known holes"
                problems.append(Problem(needed.name, what))
    if problems:
        raise InputError(problems)
