"""`files.read_unit` as a Ray Data source."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from raypipe.config import Data
from raypipe.notes import cleaning, files


class NotesSource(Datasource):
    """Notes in files, each row validated as it is read."""

    def __init__(self, data: Data, units: Sequence[files.Unit], kept: Mapping[int, files.Mask]) -> None:
        super().__init__()
        self.data, self.units, self.kept = data, units, kept

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task per unit."""
        schema = cleaning.schema(files.all_columns(self.data))
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, task_exec_stats=None)
        return [
            ReadTask(
                functools.partial(_read, unit, self.data, self.kept.get(i)),
                metadata,
                schema,
                per_task_row_limit,
            )
            for i, unit in enumerate(self.units)
        ]


def _read(unit: files.Unit, data: Data, kept: files.Mask | None) -> Iterator[pa.Table]:
    return files.read_unit(unit, data, files.all_columns(data), kept)
