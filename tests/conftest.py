"""Each file of tests starts its own cluster: steps that join one in this process leave it to the next file."""

import signal
import sys
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job, and commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "tests/test_jobs.py",
    "tests/runs/test_resume.py",
    "tests/chaos/test_chaos.py",
)  # begun first, nothing waits for them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True, scope="module")
def leave_the_cluster() -> Iterator[None]:
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as the terminal, which must not decide a test."""
    monkeypatch.setenv("COLUMNS", "100")
