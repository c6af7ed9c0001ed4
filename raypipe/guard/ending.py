"""How a process ends that cannot be trusted to end by itself: because a thread hangs, or must not write any more.

No signal is sent to it, because it may ignore signals: a shell lets all that it starts with `&` ignore ctrl-C.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import NoReturn

from raypipe.guard.terminal import say

GRACE_S = 5.0  # for last words and for tidying up


def soon(code: int) -> None:
    """The process has ended `GRACE_S` from now, whatever it does meanwhile."""
    timer = threading.Timer(GRACE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


def at_once(code: int, line: str) -> NoReturn:
    """Say a last line and end the process. It ends even if the line cannot be written: stderr may be full or gone."""
    try:
        soon(code)  # writing to a disk that does not answer raises nothing: it waits
        with suppress(Exception):
            say(line, is_error=True)
    finally:
        os._exit(code)
