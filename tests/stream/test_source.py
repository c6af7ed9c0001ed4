"""Ray reads the same notes as this process does, in blocks of the size asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raypipe import rows
from raypipe.notes.files import iter_notes
from raypipe.settings.config import Data
from raypipe.stream.source import read_notes

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


def test_read_notes_equals_iter_notes(cluster, tmp_path):
    texts = [None, "", "testo"] * 100
    table = pa.table({"note_id": [f"{i % 290:04d}" for i in range(300)], "text": texts})  # 10 ids come back
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=150)
    pq.write_table(pa.table({"note_id": ["0005", "x"], "text": ["testo"] * 2}), tmp_path / "b.parquet")
    data = Data(notes=str(tmp_path), on_duplicate_id="keep_first")
    blocks = list(read_notes(data, rows_per_block=40).iter_batches(batch_size=None, batch_format="pyarrow"))
    assert max(block.num_rows for block in blocks) <= 40
    assert len(blocks) >= 7
    assert {block.schema for block in blocks} == {rows.NOTES}  # a block of nulls keeps the type of its columns
    expected = pa.concat_tables(iter_notes(data)).sort_by("note_id")
    assert len(expected) == 291
    assert pa.concat_tables(blocks).sort_by("note_id") == expected
