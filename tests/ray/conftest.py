"""Each file of tests starts its own cluster: steps that join one in this process leave it to the next step."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(autouse=True, scope="module")
def leave_the_cluster() -> Iterator[None]:
    yield
    ray.shutdown()
