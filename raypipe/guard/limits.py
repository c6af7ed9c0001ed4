"""Limits of time for what users and models bring along: regular expressions, and templates of chats.

Expressions run in the `regex` package, which takes those of `re` and can stop: one that `re` would search for hours,
such as `(a|aa)+$`, ends after `LIMIT_S`. (A linear-time engine would refuse lookaround, which protects text well.)
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

import regex

from raypipe.words import normalise

Result = TypeVar("Result")
LIMIT_S = 5.0  # of one expression on one text: a sound one takes milliseconds on the longest note


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The expression, with accents composed (NFC) as in every note: an editor may write them as two characters each.

    Raises ValueError if it is none.
    """
    try:
        return regex.compile(normalise(pattern))
    except regex.error as error:
        raise ValueError(f"not a regular expression: {error.msg}") from None


def spans(pattern: str, text: str) -> list[tuple[int, int]]:
    """Characters [start, end) of every match. Raises TimeoutError."""
    return [match.span() for match in compiled(pattern).finditer(text, timeout=LIMIT_S)]


def fullmatch(pattern: str, text: str) -> dict[str, str | None] | None:
    """The named groups of a match of the whole text; None if there is none. Raises TimeoutError."""
    match = compiled(pattern).fullmatch(text, timeout=LIMIT_S)
    return None if match is None else match.groupdict()


def within_limit(work: Callable[[], Result]) -> Result:
    """What `work` returns, from a thread of its own. Raises what it raises, or TimeoutError after `LIMIT_S`."""
    results: list[Result] = []
    errors: list[Exception] = []

    def in_thread() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)
        except SystemExit:  # below
            pass

    thread = threading.Thread(target=in_thread, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():  # ended where it is, or it would go on beside us
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
