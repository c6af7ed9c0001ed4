"""Marks the notes that self-supervision must not see (validation and test patients, near copies) or need not see."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.hashing import stable_hash
from raypipe.notes.leakage import Guard, is_of_other_part
from raypipe.stream.stages.quiet import quiet


@quiet
def hold_out(
    table: pa.Table, guard: Guard | None, last_hash: int | None, pretraining_share: float, pretrains: bool
) -> pa.Table:
    """Notes in, the same notes out; one that is left out loses its text and gets a code, be it broken or not.

    `last_hash`: notes whose hashed id is larger are beyond `data.max_unlabelled`. A threshold instead of a list of ids:
    the sample costs the workers nothing. `pretrains`: of the two parts that `data.pretraining_share` makes, keep
    the one that only pretraining reads.
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
