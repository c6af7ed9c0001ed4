"""Marks the notes that self-supervision must not see: those of validation and test patients, and their near copies."""

from __future__ import annotations

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.notes.leakage import Guard


def hold_out(table: pa.Table, guard: Guard) -> pa.Table:
    """Notes in, the same notes out; a blocked note loses its text and gets the code `HELD_OUT`."""
    out = []
    for row in table.to_pylist():
        if row["error"] is None and guard.blocks(row["note_id"], row["group_id"], row["text"]):
            row |= {"text": None, "error": Code.HELD_OUT.value}
        out.append(row)
    return rows.table(out, table.schema)
