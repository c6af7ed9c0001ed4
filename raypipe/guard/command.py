"""The one guard around every command and job: whatever happens, lines without note text and a documented exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

from raypipe.errors import ExitCode, InputError, QuietError
from raypipe.guard import ending
from raypipe.guard.process import demand_floors, protect
from raypipe.guard.quiet import frames, ours, without_text
from raypipe.guard.terminal import close_to_libraries, descriptor_of_errors, say

TRACEBACK = "RAYPIPE_TRACEBACK"  # set: an unexpected error also shows where it came from, without messages
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C, or SIGTERM from a scheduler. Like KeyboardInterrupt it passes all that handles errors."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number  # as shells count
        super().__init__()


def run(work: Callable[[], object]) -> int:
    """Do the work of a command; its exit code (errors.ExitCode, or what `work` returns if that is a number).

    The code stays what it is if nobody can be told: stdout or stderr may be full, or their reader gone.
    """
    try:
        return _code(work)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up_unwritable(stream)


def _code(work: Callable[[], object]) -> int:
    protect()
    close_to_libraries()
    try:
        with _interruptible():
            demand_floors()
            result = work()
        return result if isinstance(result, int) else ExitCode.OK
    except Interrupted as interrupted:
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our lines went away, as `| head` does
        return 128 + signal.SIGPIPE
    except SystemExit as end:
        return end.code or ExitCode.OK if isinstance(end.code, int | None) else _tell(end)  # code may be a message
    except BaseException as error:
        return _tell(error)


def _tell(error: BaseException) -> int:
    failure = without_text(error)
    with suppress(OSError):
        for line in _lines(error, failure):
            say(line, is_error=True)
    if isinstance(failure, InputError):
        return failure.exit_code
    is_lost = ours(error) is None and type(error).__module__.startswith("ray.")  # a worker, or a node without memory
    return ExitCode.PARTIAL if is_lost else ExitCode.DEFECT


def _lines(error: BaseException, failure: InputError | QuietError) -> Iterator[str]:
    if isinstance(failure, InputError):
        for problem in failure.problems:
            yield f"error: {' '.join(str(problem).splitlines())}"  # a value that it quotes may hold some
    else:
        way = f"{TRACEBACK}=1 shows the way there, without messages: those may quote notes"
        yield f"error: {failure}; what is finished stays; {way}"
    if os.environ.get(TRACEBACK) and (error.__cause__ is not None or not isinstance(failure, InputError)):
        yield from frames(error)


def _give_up_unwritable(stream: TextIO | None) -> None:
    """Python flushes at its end, too, and would change the exit code where that fails."""
    if stream is not None:
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _interruptible() -> Iterator[None]:
    """Signals end the command while this lasts. One that was ignored before (nohup) stays ignored."""
    with keeping_signals():
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, _interrupt)
        yield


def _interrupt(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:  # a second one ends the process at once
        signal.signal(other, signal.SIG_DFL)
    ending.soon(128 + number)
    line = b"\nstopped: what is finished stays, and the same command goes on where it stopped\n"
    with suppress(OSError):
        os.write(descriptor_of_errors(), line)  # print might be what was interrupted
    raise Interrupted(number)


@contextmanager
def keeping_signals() -> Iterator[None]:
    """What is called in here may set handlers of signals (Ray does); afterwards they are what they were."""
    is_main = threading.current_thread() is threading.main_thread()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and not _was_interrupted(number):
                signal.signal(number, handler)


def _was_interrupted(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_DFL
