"""Keeps note text out of the error messages of stages: messages reach logs, and logs are no place for patients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from raypipe.errors import InputError, QuietError

Stage = TypeVar("Stage", bound=Callable[..., Any])
_PACKAGE = Path(__file__).parents[2]


def quiet(stage: Stage) -> Stage:
    """The same stage, but what it raises becomes a `QuietError`: name of the stage, type of the exception, and line.

    A library's message may quote the text it choked on, and Ray logs messages with all their causes. An `InputError`
    passes, because it speaks of the config alone (errors.py).
    """
    if not isinstance(stage, type):
        return _guarded(stage.__name__, stage)
    for name in ("__init__", "__call__"):
        setattr(stage, name, _guarded(stage.__name__, getattr(stage, name)))
    return stage


def _guarded(stage: str, function: Any) -> Any:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        failure: Exception
        try:
            return function(*args, **kwargs)
        except InputError as error:
            failure = InputError(error.problems, error.exit_code)
        except Exception as error:
            failure = QuietError(f"stage {stage}: {type(error).__name__} at {place(error.__traceback__)}")
        raise failure from None  # outside the handlers, or the original would go along as its context

    return guarded


def place(traceback: TracebackType | None) -> str:
    """File and line of the innermost frame in this package."""
    place = "?"
    while traceback is not None:
        path = Path(traceback.tb_frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            place = f"{path.relative_to(_PACKAGE.parent)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
