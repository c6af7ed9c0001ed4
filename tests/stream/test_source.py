"""Ray reads the same notes as this process does, in blocks of the size asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raypipe import rows
from raypipe.notes.files import iter_notes
from raypipe.settings.config import Data, Resources
from raypipe.stream.cluster import BLOCK_BYTES, join
from raypipe.stream.source import read_notes, read_stored

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
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


def test_what_is_read_fills_no_small_object_store(cluster, tmp_path):
    """Ray's default, 128 MiB a block, can fill the store of a small container: then no later stage begins."""
    workers = join(Resources(allow_unauthenticated_cluster=True))
    texts = ["testo " * 3500] * 3000  # 63 MB
    pq.write_table(pa.table({"note_id": [f"{i:05d}" for i in range(3000)], "text": texts}), tmp_path / "notes.parquet")
    blocks = workers.parquet(str(tmp_path / "notes.parquet")).iter_batches(batch_size=None, batch_format="pyarrow")
    sizes = [block.nbytes for block in blocks]
    assert sum(sizes) > 60e6
    assert max(sizes) <= 1.5 * BLOCK_BYTES


def test_stored_rows_are_read_with_their_checksums(cluster, tmp_path):
    stored = pa.table({"note_id": [f"{i:05d}" for i in range(3000)], "text": ["testo"] * 3000, "error": [None] * 3000})
    stored = stored.cast(pa.schema([(name, pa.string()) for name in stored.schema.names]))
    for part in range(3):
        pq.write_table(
            stored.slice(1000 * part, 1000), tmp_path / f"{part}.parquet", use_dictionary=False, **rows.WRITE
        )
    read = pa.concat_tables(read_stored(str(tmp_path)).iter_batches(batch_size=None, batch_format="pyarrow"))
    assert read.sort_by("note_id") == stored
    assert read_stored(str(tmp_path), ["text", "note_id"]).schema().names == ["text", "note_id"]

    path = tmp_path / "1.parquet"
    column = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(Exception, match="CRC"):
        read_stored(str(tmp_path)).materialize()
