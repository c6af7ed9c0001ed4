"""`reading.read_unit` as a Ray Data source."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from raypipe.notes import cleaning
from raypipe.notes.reading import Mask, Unit, read_unit
from raypipe.settings.config import Data


class NotesSource(Datasource):
    """Notes in files, each row validated as it is read."""

    def __init__(self, data: Data, columns: Sequence[str], units: Sequence[Unit], kept: Mapping[int, Mask]) -> None:
        super().__init__()
        self.data, self.columns, self.units, self.kept = data, columns, units, kept

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task per unit."""
        schema = cleaning.schema(self.columns)
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, task_exec_stats=None)
        return [
            ReadTask(
                functools.partial(read_unit, unit, self.data, self.columns, self.kept.get(i)),
                metadata,
                schema,
                per_task_row_limit,
            )
            for i, unit in enumerate(self.units)
        ]
