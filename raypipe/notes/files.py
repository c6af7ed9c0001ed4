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
from raypipe.errors import InputError, Problem
from raypipe.notes import cleaning
from raypipe.notes.reading import Mask, Unit, read_unit, units
from raypipe.settings.config import Data

if TYPE_CHECKING:
    import ray.data


def read_notes(data: Data, rows_per_block: int) -> ray.data.Dataset:
    """The notes as a Ray dataset of `rows.NOTES` (and `tags`, if configured), in blocks of `rows_per_block` rows.

    Raises `InputError` before anything is read if a file or column is missing, or an id occurs twice.
    """
    import ray.data

    from raypipe.stream.source import NotesSource

    todo = units(data)
    source = NotesSource(data, all_columns(data), todo, kept_rows(data, todo))
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


def kept_rows(data: Data, todo: Sequence[Unit]) -> dict[int, Mask]:
    """Which rows to keep of the units that hold an id again; all rows of the others.

    Reads the ids alone (about 50 bytes of memory each). Raises `InputError` if an id occurs twice and
    `on_duplicate_id` is `error`.
    """
    per_unit = [pa.concat_tables(read_unit(unit, data, ["note_id"]))["note_id"] for unit in todo]
    ids = pa.chunked_array([chunk for unit_ids in per_unit for chunk in unit_ids.chunks], pa.string())
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return {}
    is_repeated = pc.is_in(ids, repeated).to_numpy()
    if data.on_duplicate_id == "error":
        example = cleaning.hashed(repeated[0].as_py())
        what = (
            f"{len(repeated):,} note ids occur more than once ({is_repeated.sum():,} rows; one is, hashed, {example})"
        )
        how = "make them unique, or set data.on_duplicate_id to keep_first"
        raise InputError([Problem("data.notes", f"{what}; {how}")])
    keep, seen = np.ones(len(ids), dtype=bool), set()
    for row in np.flatnonzero(is_repeated):
        note_id = ids[row].as_py()
        keep[row] = note_id not in seen
        seen.add(note_id)
    cuts = np.cumsum([len(unit_ids) for unit_ids in per_unit])[:-1]
    return {i: kept for i, kept in enumerate(np.split(keep, cuts)) if not kept.all()}
