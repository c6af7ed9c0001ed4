"""What Ray skips of a stream that goes on: the notes whose ids it has recorded as written.

Ids are compared by their hashes, 8 bytes each in memory that is mapped. Ray's own filter holds every id as a Python
string: 70 MB more for a million short ones (docs/experiments/scale.md). Two ids with one hash would lose a note, once
in 18 million corpora of which a million notes are written and a million are not; the audit of the step would tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from ray.data import Dataset
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_filter import CheckpointFilter, IdColumnCheckpointManager

from raypipe.hashing import stable_hash


def skipping(written: Path) -> CheckpointConfig:
    """Ray's settings for streams that record ids in the folder `written`, and skip those that are there."""
    config = CheckpointConfig(
        id_column="note_id",
        checkpoint_path=str(written),
        delete_checkpoint_on_success=False,  # Ray's default makes a second run append everything again
        checkpoint_manager_cls=Hashed,
        checkpoint_filter_cls=Unwritten,
    )
    config.checkpoint_actor_pool_max_size = 1  # of 10, which Ray starts and ends by turns; a hash takes 1.5 us
    return config


class Hashed(IdColumnCheckpointManager):
    """Reads what was written as hashes, which Ray then sorts."""

    def _preprocess_data_pipeline(self, checkpoint_ds: Dataset) -> Dataset:
        name = self.id_column

        def hashed(ids: pa.Table) -> pa.Table:
            return pa.table({name: _hashes(ids[name])})

        return checkpoint_ds.map_batches(hashed, batch_format="pyarrow")


class Unwritten(CheckpointFilter):
    """Lets the rows through whose ids are not written."""

    def __init__(self, config: CheckpointConfig, checkpoint_ref: Any) -> None:
        super().__init__(config, checkpoint_ref)
        self.written: npt.NDArray[np.uint64] = ray.get(checkpoint_ref)  # sorted, mapped from the object store

    def filter_rows_for_block(self, block: pa.Table) -> pa.Table:
        """The rows of `block` that are still to be made."""
        if not len(block):
            return block
        hashes = _hashes(block[self.id_column])
        at = np.minimum(np.searchsorted(self.written, hashes), len(self.written) - 1)
        return block.filter(pa.array(self.written[at] != hashes))


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    return np.array([stable_hash(each) for each in ids.to_pylist()], dtype=np.uint64)
