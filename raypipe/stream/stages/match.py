"""Notes and their stored relevance, side by side again.

Ray 2.60's own join needs polars and knows no list columns in Arrow; two stages around a shuffle by note_id do the same.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.stream.stages.attribute import WITH_TEXT
from raypipe.stream.stages.quiet import quiet

# Both kinds of row in one stream
EITHER = pa.schema([*WITH_TEXT, ("is_stored", pa.bool_())])


@quiet
def either(table: pa.Table, is_stored: bool) -> pa.Table:
    """Notes, or stored relevance, as rows of EITHER."""
    columns = [table[f.name] if f.name in table.column_names else pa.nulls(len(table), f.type) for f in WITH_TEXT]
    return pa.table([*columns, pa.repeat(is_stored, len(table))], schema=EITHER)


@quiet
def match(table: pa.Table) -> pa.Table:
    """Both rows of each note in, one row out (WITH_TEXT); a note without stored relevance stays without."""
    if not table.num_rows:
        return WITH_TEXT.empty_table()
    notes, stored = table.filter(pc.invert(table["is_stored"])), table.filter(table["is_stored"])
    found = stored.take(pc.index_in(notes["note_id"], stored["note_id"].combine_chunks()))
    columns = {name: notes[name] for name in ("note_id", "text", "tags")}
    columns |= {field.name: found[field.name] for field in rows.ATTRIBUTED if field.name not in ("note_id", "error")}
    columns["error"] = pc.coalesce(notes["error"], found["error"])
    return pa.table([columns[name] for name in WITH_TEXT.names], schema=WITH_TEXT)
