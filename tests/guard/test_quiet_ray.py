"""An exception that crossed Ray, with all that Ray hangs on it, holds no note text."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray

from raypipe.guard.quiet import quiet

pytestmark = pytest.mark.ray
CANARY = "Mario Rossi, nato a Pavia"


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


def test_no_text_crosses_ray(cluster: None) -> None:
    @quiet
    def broken(table: pa.Table) -> pa.Table:
        raise ValueError(table["text"][0].as_py())

    notes = ray.data.from_arrow(pa.table({"text": [CANARY]}))
    with pytest.raises(Exception, match="stage broken: ValueError") as caught:
        notes.map_batches(broken, batch_format="pyarrow").materialize()
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r} {vars(error)}"
        assert CANARY not in "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
