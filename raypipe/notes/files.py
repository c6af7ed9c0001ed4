"""Notes from Parquet, JSONL or CSV files (.gz too), on disk or behind a URI: here, or as a Ray dataset.

One reader for both (reading.py). Ray's own readers are not used, because they guess types per block (CSV ids lose their
zeros, broken UTF-8 becomes a binary column, a column that is null in one block gets another type) and because Ray
2.60's Parquet reader puts a folder into one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.config import Data
from raypipe.errors import InputError, Problem
from raypipe.notes import cleaning
from raypipe.notes.reading import Mask, Unit, read_unit, units

if TYPE_CHECKING:
    import ray.data


def read_notes(data: Data, rows_per_block: int = 256, ids: pa.Array | None = None) -> ray.data.Dataset:
    """The notes as a Ray dataset of `rows.NOTES` (and `tags`, if configured), in blocks of `rows_per_block` rows.

    `ids`: only the notes with these ids. Raises `InputError` before anything is read if a file or column is missing,
    or an id occurs twice.
    """
    import ray.data

    from raypipe.notes.source import NotesSource

    todo = units(data)
    source = NotesSource(data, all_columns(data), todo, kept_rows(data, todo, ids))
    # as many blocks as units, or Ray cuts each unit into 200; then the blocks that we want, whatever the files' sizes
    dataset = ray.data.read_datasource(source, override_num_blocks=len(todo))
    return dataset.repartition(target_num_rows_per_block=rows_per_block)


def iter_notes(data: Data, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The same rows in this process, as small tables. `columns`: a subset of the columns, always with `note_id`.

    Without `text` among them the texts are not read, and `error` speaks of the id alone.
    """
    todo = units(data)
    kept = kept_rows(data, todo)
    for i, unit in enumerate(todo):
        yield from read_unit(unit, data, columns or all_columns(data), kept.get(i))


def all_columns(data: Data) -> list[str]:
    """The columns that `data` yields."""
    return [*rows.NOTES.names, *(["tags"] if data.columns.tags else [])]


def kept_rows(data: Data, todo: Sequence[Unit], ids: pa.Array | None = None) -> dict[int, Mask]:
    """Which rows of a unit to keep, for the units of which some are left out: later rows of an id, rows not in `ids`.

    Reads the ids alone (about 50 bytes of memory each). Raises `InputError` if an id occurs twice and
    `on_duplicate_id` is `error`.
    """
    per_unit = [pa.concat_tables(read_unit(unit, data, ["note_id"]))["note_id"] for unit in todo]
    all_ids = pa.chunked_array([chunk for unit_ids in per_unit for chunk in unit_ids.chunks], pa.string())
    counts = pc.value_counts(all_ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated) and data.on_duplicate_id == "error":
        n_rows, example = pc.sum(pc.is_in(all_ids, repeated)).as_py(), cleaning.hashed(repeated[0].as_py())
        what = f"{len(repeated):,} note ids occur more than once ({n_rows:,} rows; one is, hashed, {example})"
        raise InputError(
            [Problem("data.notes", f"{what}; make them unique, or set data.on_duplicate_id to keep_first")]
        )
    keep = np.ones(len(all_ids), dtype=bool) if ids is None else _numpy(pc.is_in(all_ids, ids))
    seen: set[str] = set()
    for row in np.flatnonzero(_numpy(pc.is_in(all_ids, repeated))):
        note_id = all_ids[row].as_py()
        keep[row] &= note_id not in seen
        seen.add(note_id)
    cuts = np.cumsum([len(unit_ids) for unit_ids in per_unit])[:-1]
    return {i: kept for i, kept in enumerate(np.split(keep, cuts)) if not kept.all()}


def _numpy(mask: pa.ChunkedArray) -> Mask:
    return mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy()
