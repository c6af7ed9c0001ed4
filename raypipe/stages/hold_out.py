"""Marks the notes that self-supervision must not see: those of validation and test patients, and their near copies."""

from __future__ import annotations

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.notes.leakage import Guard


class HoldOut:
    """Notes in, the same notes out; a blocked note loses its text and gets the code `HELD_OUT`."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def __call__(self, table: pa.Table) -> pa.Table:
        out = []
        for row in table.to_pylist():
            if row["error"] is None and self.guard.blocks(row["note_id"], row["group_id"], row["text"]):
                row |= {"text": None, "error": Code.HELD_OUT.value}
            out.append(row)
        return rows.table(out, table.schema)
