"""Marks the notes that self-supervision must not see (dev and test patients, near copies) or does not need."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.guard.quiet import quiet
from raypipe.hashing import stable_hash
from raypipe.notes.leakage import Guard, is_of_other_part


@quiet
def hold_out(
    table: pa.Table, guard: Guard | None, last_hash: int | None, pretraining_share: float, pretrains: bool
) -> pa.Table:
    """Notes in, the same notes out. A note that is left out, broken or not, loses its text and gets a code.

    `last_hash`: notes whose hashed id is larger are beyond `data.max_unlabelled`; a threshold spares the workers a list
    of ids. `pretrains`: of the two parts that `data.pretraining_share` makes, let through the one for pretraining.
    """

    def verdict(note: dict[str, Any]) -> Code | None:
        if last_hash is not None and stable_hash(note["note_id"]) > last_hash:
            return Code.NOT_SAMPLED
        if is_of_other_part(note["note_id"], note["group_id"], pretraining_share, pretrains):
            return Code.NOT_SAMPLED
        if note["error"] is None and guard is not None:
            return Code.HELD_OUT if guard.blocks(note["note_id"], note["group_id"], note["text"]) else None
        return None

    out = []
    for note in table.to_pylist():
        code = verdict(note)
        out.append(note if code is None else note | {"text": None, "error": code.value})
    return rows.table(out, table.schema)
