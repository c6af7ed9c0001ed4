"""A thread that looks now and then at what another one does: for progress, for curves, for whoever hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` so often, in a thread of its own, while the block runs. No call is left when the block has ended."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            look()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
