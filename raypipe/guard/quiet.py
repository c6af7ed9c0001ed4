"""Keeps note text out of error messages: messages reach terminals and logs, and those are no place for patients.

A library's message may quote the text that it choked on. So what is said of a failure is our own: an `InputError` as it
is, trouble with the disk with its fix, and of anything else the type and the line.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from raypipe.errors import ExitCode, InputError, Problem, QuietError

Stage = TypeVar("Stage", bound=Callable[..., Any])
_PACKAGE = Path(__file__).parents[1]
_GOES_ON = "the same command goes on where it stopped"
_STORAGE = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the quota of this disk is used up: make room",
    errno.EROFS: "this disk is read-only: set `runs` to another folder, or mount it for writing",
    errno.EACCES: "not permitted: let this user read and write here, or set `runs` to another folder",
    errno.EPERM: "not permitted: let this user read and write here, or set `runs` to another folder",
    errno.ENOTDIR: "a file stands where a folder should be: remove it, or set `runs` to another folder",
    errno.EEXIST: "a file stands where a folder should be: remove it, or set `runs` to another folder",
    errno.EISDIR: "a folder stands where a file should be: remove it, or name another file",
    errno.ENAMETOOLONG: "a name is too long for this disk: choose a shorter one",
    errno.EIO: "the disk failed: repair it, or set `runs` to another folder",
    errno.ESTALE: "the shared disk was unmounted or replaced: mount it again",
    errno.EFBIG: "a file may not grow so large here: raise `ulimit -f`",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.ENFILE: "too many open files on this machine: close some",
}
NOWHERE = "?"  # no line of ours
_OF_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers, written in Rust, tell the same


def quiet(stage: Stage) -> Stage:
    """The same stage (a function, a generator, or a class that is called), but what it raises holds no note text.

    For what runs in a worker: Ray logs messages with all their causes.
    """
    if not isinstance(stage, type):
        return _guarded(stage.__name__.lstrip("_"), stage)
    for name in ("__init__", "__call__"):
        setattr(stage, name, _guarded(stage.__name__, getattr(stage, name)))
    return stage


def _guarded(stage: str, function: Any) -> Any:
    if inspect.isgeneratorfunction(function):
        return _guarded_generator(stage, function)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        failure: Exception
        try:
            return function(*args, **kwargs)
        except Exception as error:
            failure = without_text(error, f"stage {stage}: ")
        raise failure from None  # outside the handlers, or the original would go along as its context

    return guarded


def _guarded_generator(stage: str, function: Any) -> Any:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        failure: Exception
        try:
            yield from function(*args, **kwargs)
            return
        except Exception as error:
            failure = without_text(error, f"stage {stage}: ")
        raise failure from None

    return guarded


def without_text(error: BaseException, whose: str = "") -> InputError | QuietError:
    """What may be said of a failure. `whose`: stands before the type of an error that says nothing itself."""
    return ours(error) or QuietError(f"{whose}{type(error).__name__} at {place(error.__traceback__)}")


def ours(error: BaseException) -> InputError | QuietError | None:
    """What we said ourselves of a failure, where it began; None if we did not."""
    for cause in _causes(error):
        if _is_ours(cause) and isinstance(cause, InputError):
            return InputError(cause.problems, cause.exit_code)
        if _is_ours(cause) and isinstance(cause, QuietError):
            return QuietError(str(cause))
        if (trouble := of_disk(cause) or _memory(cause) or _standstill(cause)) is not None:
            return trouble
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from; on Ray's errors hangs what came from a worker (`cause`, and Train's)."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and not any(cause is other for other in seen):
            seen.append(cause)
            yield cause
            waiting += [
                getattr(cause, name, None) for name in ("cause", "controller_failure", "_base_exc", "__cause__")
            ]
            waiting += dict(getattr(cause, "worker_failures", None) or {}).values()


def _is_ours(error: BaseException) -> bool:
    """Ray makes classes that derive from ours, and whose message is the whole traceback: they are not ours."""
    return type(error).__module__.partition(".")[0] == "raypipe"


def of_disk(error: BaseException, file: str | None = None) -> InputError | None:
    """Trouble with the disk, with its fix, and the part of the path that is there: so it is a path, and no text.

    `file`: what was read, where the error does not say it. None if the error is of another kind.
    """
    in_rust = _OF_RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    number = int(in_rust[1]) if in_rust else error.errno if isinstance(error, OSError) else None
    if number not in _STORAGE:
        return None
    path = Path(str(getattr(error, "filename", None) or file))
    there = next((str(part) for part in (path, *path.parents[:-1]) if path.is_absolute() and os.path.exists(part)), "")
    what = f"{_STORAGE[number]}; {_GOES_ON} ({errno.errorcode[number]})"
    return InputError([Problem(there, what)], ExitCode.STORAGE)


def _memory(error: BaseException) -> InputError | None:
    """Out of memory, of a machine or of a GPU: torch has a class of its own for the latter, Ray for a lost worker."""
    if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
        return None
    smaller = "attribution.batch_tokens, train.micro_batch_tokens or resources.rows_per_block"
    return InputError(f"out of memory: take a machine with more, or lower {smaller}; {_GOES_ON}", ExitCode.PARTIAL)


def _standstill(error: BaseException) -> InputError | None:
    """Ray Data ended a stream in which no block of notes was done for a while: also one whose blocks take longer."""
    if type(error).__name__ != "ExecutionTimeoutError":
        return None
    what = "no block of notes was done for resources.no_progress_timeout_s: if the notes take that long, lower"
    what = f"{what} resources.rows_per_block (notes in a block) or raise that limit"
    return InputError(f"{what}; {_GOES_ON}", ExitCode.PARTIAL)


def place(trace: TracebackType | None) -> str:
    """File and line of the innermost frame in this package."""
    place = NOWHERE
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_own(file):
            place = f"{Path(file).relative_to(_PACKAGE.parent)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def is_own(file: str) -> bool:
    """Is it a file of this package?"""
    return Path(file).is_relative_to(_PACKAGE)


def frames(error: BaseException) -> Iterator[str]:
    """A traceback without messages and values: types, files, lines and functions."""
    for cause in _causes(error):
        yield f"{type(cause).__module__}.{type(cause).__qualname__}"
        for frame in traceback.extract_tb(cause.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} {frame.name}"
