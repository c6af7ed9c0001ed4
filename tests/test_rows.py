"""Rows on disk: small, and the same when read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.words import word_spans

TEXT = "Paziente di anni 74, giunge in PS per dispnea ingravescente e febbre da tre giorni. " * 40


def test_offsets_are_stored_as_differences(tmp_path: Path) -> None:
    words = word_spans(TEXT)
    plan = {"arm": "a", "task_id": "t", "draw": 0, "n_masked": 1, "n_eligible": len(words)}
    plan |= {"start": words[::7, 0], "end": words[::7, 1], "kind": np.zeros(len(words[::7]), np.int8)}
    row = {"text": TEXT, "plans": [plan], "task_id": ["t"], "predicted": ["no"], "margin": [0.5], "layers": [0]}
    row |= {"word_start": words[:, 0], "word_end": words[:, 1], "relevance": np.ones(len(words), np.float16)}
    table = rows.table([{"note_id": f"n{i}", **row} for i in range(50)], rows.MASKED)
    pq.write_table(table, tmp_path / "rows.parquet", **rows.PARQUET)
    assert pq.read_table(tmp_path / "rows.parquet").equals(table)
    group = pq.ParquetFile(tmp_path / "rows.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name, encoding in rows.PARQUET["column_encoding"].items():
        assert encoding in columns[name].encodings, name
        assert columns[name].total_uncompressed_size < 2 * columns[name].num_values  # bytes; an int32 has four
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert set(rows.PARQUET["use_dictionary"]) <= set(columns)


def test_a_flipped_bit_is_an_error_however_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"note_id": [f"{n * 7919 % 100_003:06d}" for n in range(5000)]})
    rows.write(table, path)
    assert rows.read(path) == rows.dataset(tmp_path).to_table() == table
    column = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 4
    path.write_bytes(content)
    for read in (
        lambda: rows.read(path),
        lambda: rows.dataset(tmp_path).to_table(),
        lambda: [fragment.to_table() for fragment in rows.dataset(path).get_fragments()],
    ):
        with pytest.raises(OSError, match="CRC"):
            read()


def test_tables_are_written_and_read_in_one_place() -> None:
    """What reads and writes past it knows no checksums. Notes and word counts of the user are read elsewhere."""
    calls = ("pq.write_table(", "pq.read_table(", "pds.dataset(")
    package = Path(rows.__file__).parent
    elsewhere = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(call in path.read_text() for call in calls)
    }
    assert elsewhere == {"rows.py", "masking/general.py"}


@pytest.mark.parametrize("part", [slice(0, 4), slice(1, 3), slice(2, 2)])
def test_records_are_the_rows_and_numbers_stay_arrays(part: slice) -> None:
    made = {"note_id": ["a", "b", "c", "d"], "words": [[1, 2], None, [], [3]], "layers": [["x"], [], None, ["y"]]}
    schema = pa.schema([("note_id", pa.string()), ("words", pa.list_(pa.int32())), ("layers", pa.list_(pa.string()))])
    table = pa.table(made, schema=schema).slice(part.start, part.stop - part.start)
    records = rows.records(table)
    assert rows.table(records, schema) == table.combine_chunks()
    assert [record["layers"] for record in records] == table["layers"].to_pylist()
    assert all(record["words"] is None or record["words"].dtype == np.int32 for record in records)
