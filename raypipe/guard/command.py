"""The one guard around every command and job: whatever happens, lines without note text and a documented exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from raypipe.errors import ExitCode, InputError
from raypipe.guard.process import demand_floors, protect
from raypipe.guard.quiet import frames, ours, without_text
from raypipe.guard.terminal import close_to_libraries, descriptor_of_errors, say

TRACEBACK = "RAYPIPE_TRACEBACK"  # set: an unexpected error also shows where it came from, without messages
GRACE_S = 5.0  # from a signal to the end, even if a thread hangs
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C, or SIGTERM from a scheduler. Like KeyboardInterrupt it passes all that handles errors."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number  # as shells count
        super().__init__()


def run(work: Callable[[], object]) -> int:
    """Do the work of a command; its exit code (errors.ExitCode, or what `work` returns if that is a number)."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SystemExit as end:
        return end.code or ExitCode.OK if isinstance(end.code, int | None) else _tell(end)  # code may be a message
    except BaseException as error:
        return _tell(error)


def _tell(error: BaseException) -> int:
    failure = without_text(error)
    if isinstance(failure, InputError):
        for problem in failure.problems:
            say(f"error: {' '.join(str(problem).splitlines())}", is_error=True)  # a value that it quotes may hold some
        return failure.exit_code
    is_lost = ours(error) is None and type(error).__module__.startswith("ray.")  # a worker, or a node without memory
    way = f"{TRACEBACK}=1 shows the way there, without messages: those may quote notes"
    say(f"error: {failure}; what is finished stays; {way}", is_error=True)
    if os.environ.get(TRACEBACK):
        for line in frames(error):
            say(line, is_error=True)
    return ExitCode.PARTIAL if is_lost else ExitCode.DEFECT


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
    line = b"\nstopped: what is finished stays, and the same command goes on where it stopped\n"
    os.write(descriptor_of_errors(), line)  # print might be what was interrupted
    last = threading.Timer(GRACE_S, os._exit, (128 + number,))
    last.daemon = True
    last.start()
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
