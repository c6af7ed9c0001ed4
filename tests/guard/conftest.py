"""What `protect` does lasts for a process: a test that calls it leaves this one as it was."""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from raypipe.guard import process


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    environment, umask = dict(os.environ), os.umask(0o022)
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, logging.getLogRecordFactory()
    handlers, core = {s: signal.getsignal(s) for s in (2, 15)}, resource.getrlimit(resource.RLIMIT_CORE)
    yield
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    process._tell_hub()
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks[:3]
    logging.setLogRecordFactory(hooks[3])
    resource.setrlimit(resource.RLIMIT_CORE, core)
    for number, handler in handlers.items():
        signal.signal(number, handler)
