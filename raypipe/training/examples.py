"""Training rows in memory, flat: about 10 bytes a token, so 1.9M notes of 330 tokens are 6 GB per worker.

Every worker holds all rows. That is what makes the order of training a function of the seed alone: a step's rows are
the same on 1 and on 8 workers, and a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pds

from raypipe import rows
from raypipe.errors import InputError
from raypipe.words import F32, I32

# What is stored on disk: a training row, whose it is, and a key to sort by (files have no order).
STORED = pa.schema([("arm", pa.string()), ("key", pa.string()), ("draw", pa.int16()), *rows.TRAINING])


@dataclass(frozen=True)
class Examples:
    """R training rows. `rows.TRAINING` documents the columns."""

    ids: I32  # all rows' tokens, one after the other
    weight: F32
    branch: npt.NDArray[np.int16]
    start: npt.NDArray[np.int64]  # [R + 1] offsets into the above
    draw: npt.NDArray[np.int16]  # [R] which redraw of the masks the row belongs to

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """Tokens of each row [R]."""
        return np.diff(self.start)

    def total_weight_of(self, rows: npt.NDArray[np.int64]) -> float:
        """Sum of the loss weights of some rows."""
        return float(sum(self.weight[self.start[row] : self.start[row + 1]].sum(dtype=np.float64) for row in rows))

    def row(self, index: int) -> tuple[I32, F32, I32]:
        """Tokens, loss weights and branches of one row."""
        span = slice(self.start[index], self.start[index + 1])
        return self.ids[span], self.weight[span], self.branch[span].astype(np.int32)


def mixed(rows: Examples, others: Examples, share: float) -> Examples:
    """`rows`, and in each of their redraws so many of `others`, in turn, that these are `share` of all."""
    if not len(others):
        raise InputError("there are no labelled rows to learn between the masks: see arms.*.label_share")
    n_others = np.round(np.bincount(rows.draw) * share / (1 - share)).astype(np.int64)
    lengths = others.length[np.arange(n_others.sum()) % len(others)]
    return Examples(
        ids=np.concatenate([rows.ids, np.resize(others.ids, lengths.sum())]),
        weight=np.concatenate([rows.weight, np.resize(others.weight, lengths.sum())]),
        branch=np.concatenate([rows.branch, np.resize(others.branch, lengths.sum())]),
        start=np.concatenate([rows.start, rows.start[-1] + np.cumsum(lengths)]),
        draw=np.concatenate([rows.draw, np.repeat(np.arange(len(n_others), dtype=np.int16), n_others)]),
    )


def from_table(table: pa.Table) -> Examples:
    """Rows of schema `STORED` (in any order) as `Examples`, sorted by key."""
    table = table.take(np.argsort(table["key"].to_numpy(zero_copy_only=False).astype(str), kind="stable"))
    ids = table["input_ids"].combine_chunks()
    lengths = np.asarray(ids.value_lengths())
    return Examples(
        ids=np.asarray(ids.flatten(), dtype=np.int32),
        weight=np.asarray(table["loss_weight"].combine_chunks().flatten(), dtype=np.float32),
        branch=np.asarray(table["branch"].combine_chunks().flatten(), dtype=np.int16),
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        draw=np.asarray(table["draw"], dtype=np.int16),
    )


def from_rows(training_rows: Sequence[dict[str, Any]]) -> Examples:
    """Rows made in memory, kept in their order."""
    keyed = [{"arm": "", "key": f"{i:09d}", "draw": 0, **row} for i, row in enumerate(training_rows)]
    return from_table(rows.table(keyed, STORED))


def read(folder: str | Path, arm: str) -> Examples:
    """The rows of one arm from a folder of Parquet files."""
    table = rows.dataset(folder, STORED).to_table(filter=pds.field("arm") == arm)
    return from_table(table)


def write(training_rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rows of schema `STORED` as one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write(rows.table(list(training_rows), STORED), path)


def receipt(note_id: str) -> dict[str, Any]:
    """Says that a note was read, whether or not it became training rows: of no arm, its key is the note's id."""
    return {"arm": None, "key": note_id}


def receipts(folder: str | Path) -> pa.ChunkedArray:
    """Ids of the notes that were read, from a folder of Parquet files."""
    return rows.dataset(folder).to_table(columns=["key"], filter=pds.field("arm").is_null())["key"]
