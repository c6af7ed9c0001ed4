"""Marks the notes that self-supervision must not see (validation and test patients, near copies) or need not see."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.hashing import stable_hash
from raypipe.notes.leakage import Guard, is_for_pretraining
from raypipe.stages.quiet import quiet


@quiet
def hold_out(
    table: pa.Table, guard: Guard | None, last_hash: int | None, pretraining_share: float, pretrains: bool
) -> pa.Table:
    """Notes in, the same notes out; one that is left out loses its text and gets a code.

    `last_hash`: notes whose hashed id is larger are beyond `data.max_unlabelled`. A threshold instead of a list of ids:
    the sample costs the workers nothing. `pretrains`: of the two parts that `data.pretraining_share` makes, keep
    the one that only pretraining reads.
    """

    def verdict(note: dict[str, Any]) -> Code | None:
        if last_hash is not None and stable_hash(note["note_id"]) > last_hash:
            return Code.NOT_SAMPLED
        is_apart = is_for_pretraining(note["note_id"], note["group_id"], pretraining_share)
        if pretraining_share and is_apart != pretrains:
            return Code.NOT_SAMPLED
        if guard is not None and guard.blocks(note["note_id"], note["group_id"], note["text"]):
            return Code.HELD_OUT
        return None

    out = []
    for note in table.to_pylist():
        code = verdict(note) if note["error"] is None else None
        out.append(note if code is None else note | {"text": None, "error": code.value})
    return rows.table(out, table.schema)
