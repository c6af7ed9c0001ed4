"""Each file of tests starts its own cluster: steps that join one in this process leave it to the next file."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def leave_the_cluster() -> Iterator[None]:
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
