"""Has every row that went into a step come out once? Compared are sets of ids, which a wrong count could hide.

Steps that turn one note into many rows or none (those of training rows) add a receipt for each note that they read
(training/examples.py), so that a lost block shows in them, too.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.errors import ExitCode, InputError, Problem


def audit(folder: Path, ids_in: pa.ChunkedArray | pa.Array, ids_out: pa.ChunkedArray, what: str = "notes") -> None:
    """Raise `InputError` unless the two hold the same ids, each once. `folder`: of the step; `what`: ids stand for."""
    counts = ids_out.value_counts()
    came_out, times = counts.field("values"), counts.field("counts")
    wrong = {
        "lost": len(ids_in) - _n_true(pc.is_in(ids_in, came_out)),
        "doubled": _n_true(pc.greater(times, 1)),
        "that never went in": len(came_out) - _n_true(pc.is_in(came_out, pc.unique(ids_in))),
    }
    if any(wrong.values()):
        lines = ", ".join(f"{n:,} {how}" for how, n in wrong.items() if n)
        problem = Problem(str(folder), f"of {len(ids_in):,} {what}: {lines}; delete the folder and run again")
        raise InputError([problem], ExitCode.PARTIAL)


def pairs(table: pa.Table) -> pa.ChunkedArray:
    """The ids of rows that are one per task and note."""
    return pc.binary_join_element_wise(table["task_id"], table["note_id"], "\t")


def _n_true(mask: pa.ChunkedArray | pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)
