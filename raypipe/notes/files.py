"""Notes from Parquet, JSONL or CSV files (.gz too), on disk or behind a URI, read in this process.

The Ray dataset of the same rows (stream/source.py) reads by the same function (reading.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.notes import cleaning
from raypipe.notes.reading import Mask, Unit, read_unit, units
from raypipe.settings.config import Data


def iter_notes(data: Data, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Rows of `rows.NOTES` (and `tags`, if configured), as small tables. `columns`: a subset, always with `note_id`.

    Without `text` among them the texts are not read, and `error` speaks of the id alone. Raises `InputError` before
    anything is read if a file or column is missing, or an id occurs twice.
    """
    todo = units(data)
    rows_to_keep = kept_rows(data, todo)
    for i, unit in enumerate(todo):
        yield from read_unit(unit, data, columns or all_columns(data), rows_to_keep.get(i))


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
    return {i: part for i, part in enumerate(np.split(keep, cuts)) if not part.all()}
