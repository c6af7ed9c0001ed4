"""Joins notes with their stored relevance.

The join of Ray 2.60 needs polars and does not support list columns; two stages around a shuffle by note_id replace it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.stream.stages.attribute import WITH_TEXT

# Rows of both inputs in one stream
NOTE_OR_RELEVANCE = pa.schema([*WITH_TEXT, ("is_stored", pa.bool_())])


@quiet
def as_note_or_relevance(table: pa.Table, is_stored: bool) -> pa.Table:
    """Notes, or stored relevance, as rows of NOTE_OR_RELEVANCE, so that both can be shuffled as one stream."""
    columns = [table[f.name] if f.name in table.column_names else pa.nulls(len(table), f.type) for f in WITH_TEXT]
    return pa.table([*columns, pa.repeat(is_stored, len(table))], schema=NOTE_OR_RELEVANCE)


@quiet
def match(table: pa.Table) -> pa.Table:
    """Both rows of each note in, one row out (WITH_TEXT). A note without stored relevance gets none."""
    if not table.num_rows:
        return WITH_TEXT.empty_table()
    notes, stored = table.filter(pc.invert(table["is_stored"])), table.filter(table["is_stored"])
    relevance = stored.take(pc.index_in(notes["note_id"], stored["note_id"].combine_chunks()))
    columns = {name: notes[name] for name in ("note_id", "text", "tags")}
    columns |= {
        field.name: relevance[field.name] for field in rows.ATTRIBUTED if field.name not in ("note_id", "error")
    }
    columns["error"] = pc.coalesce(notes["error"], relevance["error"])
    return pa.table([columns[name] for name in WITH_TEXT.names], schema=WITH_TEXT)
