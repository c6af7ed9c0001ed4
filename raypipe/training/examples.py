"""Training rows, in an order that does not depend on files or workers. About 10 bytes a token.

A training's rows are written once as one Arrow file, which every worker maps into its memory instead of reading it:
the pages that are in use lie in the system's cache, once for all workers of a machine, and go when others need the
room. So 1.9M notes of 330 tokens are 6 GB of disk; a worker's own memory grows by some 50 bytes a row
(docs/experiments/scale.md).

Every worker sees all rows. That is what makes the order of training a function of the seed alone: a step's rows are
the same on 1 and on 8 workers, and a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.errors import InputError
from raypipe.records import replacing
from raypipe.training.schedule import Indices
from raypipe.words import F32, I32

# What is stored on disk: a training row, whose it is, and a key to sort by (files have no order).
STORED = pa.schema([("arm", pa.string()), ("key", pa.string()), ("draw", pa.int16()), *rows.TRAINING])
_OF_TRAINING = {"arm", "key"}  # columns of no other rows
BATCH = 1024  # rows that are copied at once


@dataclass(frozen=True)
class Examples:
    """R training rows."""

    table: pa.Table  # of schema `STORED`, in any order: in memory, or mapped from a file
    place: Indices  # [R] where in the table each row stands; a row may be there for several
    length: Indices  # [R] tokens of each row
    draw: npt.NDArray[np.int16]  # [R] which redraw of the masks the row belongs to

    def __len__(self) -> int:
        return len(self.place)

    def total_weight_of(self, rows: Indices) -> float:
        """Sum of the loss weights of some rows."""
        return float(self._weight_and_targets[0][rows].sum())

    def targets_of(self, rows: Indices) -> int:
        """Tokens of some rows that have a loss weight."""
        return int(self._weight_and_targets[1][rows].sum())

    def row(self, index: int) -> tuple[I32, F32, I32]:
        """Tokens, loss weights and branches of one row."""
        place = self.place[index]
        number = int(np.searchsorted(self._ends, place, side="right"))
        batch = self._batches[number]
        at = int(place) - int(self._ends[number]) + len(batch)
        ids, weight, branch = (np.asarray(batch[name][at].values) for name in rows.TRAINING.names)
        return ids, weight, branch.astype(np.int32)

    @cached_property
    def _weight_and_targets(self) -> tuple[npt.NDArray[np.float64], Indices]:
        """[R] sum of the loss weights, and tokens that have one, of each row. In one pass, batch by batch."""
        batches = self.table.select(["loss_weight"]).to_batches(max_chunksize=BATCH)
        sums = [_sums(batch.column(0)) for batch in batches] or [(np.zeros(0), np.zeros(0, np.int64))]
        weight, targets = (np.concatenate(of_all) for of_all in zip(*sums, strict=True))
        return weight[self.place], targets[self.place]

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        """The table as it lies in its file."""
        return self.table.to_batches()

    @cached_property
    def _ends(self) -> Indices:
        """Where in the table each batch ends."""
        return np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)


def _sums(weights: pa.ListArray) -> tuple[npt.NDArray[np.float64], Indices]:
    """Sum and number of the weights of each row that are not 0. A float64 holds sums of float32 exactly."""
    flat, length = np.asarray(weights.flatten()), np.asarray(weights.value_lengths())
    row = np.repeat(np.arange(len(length)), length)
    return np.bincount(row, flat, len(length)).astype(np.float64), np.bincount(row, flat != 0, len(length)).astype(
        np.int64
    )


def mixed(rows: Examples, others: Examples, share: float) -> Examples:
    """`rows`, and in each of their redraws so many of `others`, in turn, that these are `share` of all."""
    if not len(others):
        raise InputError("there are no labelled rows to learn between the masks: see arms.*.label_share")
    n_others = np.round(np.bincount(rows.draw) * share / (1 - share)).astype(np.int64)
    in_turn = np.arange(n_others.sum()) % len(others)
    return Examples(
        table=pa.concat_tables([rows.table, others.table]),
        place=np.concatenate([rows.place, len(rows.table) + others.place[in_turn]]),
        length=np.concatenate([rows.length, others.length[in_turn]]),
        draw=np.concatenate([rows.draw, np.repeat(np.arange(len(n_others), dtype=np.int16), n_others)]),
    )


def from_table(table: pa.Table) -> Examples:
    """Rows of schema `STORED` (in any order) as `Examples`, sorted by key."""
    table = table.select(STORED.names)
    place = pc.sort_indices(table["key"]).to_numpy().astype(np.int64)
    length = pc.list_value_length(table["input_ids"]).to_numpy()
    return Examples(table, place, length[place].astype(np.int64), table["draw"].to_numpy()[place])


def from_rows(training_rows: Sequence[dict[str, Any]]) -> Examples:
    """Rows made in memory, kept in their order."""
    keyed = [{"arm": "", "key": f"{i:09d}", "draw": 0, **row} for i, row in enumerate(training_rows)]
    return from_table(rows.table(keyed, STORED))


def read(folder: str | Path, arm: str) -> Examples:
    """The rows of one arm from a folder of Parquet files."""
    table = rows.dataset(folder, STORED).to_table(filter=pds.field("arm") == arm)
    return from_table(table)


def store(folder: str | Path, arm: str, file: Path) -> None:
    """The rows of one arm, from a folder of Parquet files to one Arrow file. In bounded memory, however many they are.

    The file is there as a whole or not at all.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    of_arm = rows.dataset(folder, STORED).scanner(
        filter=pds.field("arm") == arm, batch_size=BATCH, batch_readahead=2, fragment_readahead=1
    )
    with replacing(file) as fresh, pa.OSFile(str(fresh), "wb") as sink, pa.ipc.new_file(sink, STORED) as writer:
        for batch in of_arm.to_batches():
            writer.write_batch(batch)


def mapped(file: Path) -> Examples:
    """What `store` wrote. The file may be deleted while it is in use."""
    with pa.memory_map(str(file)) as source:
        return from_table(pa.ipc.open_file(source).read_all())


def write(training_rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rows of schema `STORED` as one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write(rows.table(list(training_rows), STORED), path)


def receipt(note_id: str) -> dict[str, Any]:
    """Says that a note was read, whether or not it became training rows: of no arm, its key is the note's id."""
    return {"arm": None, "key": note_id}


def done(table: pa.Table) -> int:
    """How far a step has come that writes these rows: rows, or receipts where they are training rows."""
    return table["arm"].null_count if set(table.column_names) >= _OF_TRAINING else len(table)


def done_in(file: Path) -> int:
    """The same of a Parquet file."""
    with pq.ParquetFile(file) as stored:
        return done(stored.read(columns=[name for name in stored.schema_arrow.names if name in _OF_TRAINING]))


def receipts(folder: str | Path) -> pa.ChunkedArray:
    """Ids of the notes that were read, from a folder of Parquet files."""
    return rows.dataset(folder).to_table(columns=["key"], filter=pds.field("arm").is_null())["key"]
