"""`files.read_unit` as a Ray Data source."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from raypipe.config import Data
from raypipe.notes import cleaning, files


class NotesSource(Datasource):
    """Notes in files, each row validated as it is read."""

    def __init__(self, data: Data, units: Sequence[files.Unit], skip: Mapping[int, Collection[int]]) -> None:
        super().__init__()
        self.data, self.units, self.skip = data, units, skip

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """At most `parallelism` tasks, each with every n-th unit."""
        schema = cleaning.schema(files.all_columns(self.data))
        n_tasks = max(1, min(parallelism, len(self.units)))
        shares = [range(first, len(self.units), n_tasks) for first in range(n_tasks)]
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, task_exec_stats=None)
        return [
            ReadTask(
                functools.partial(_read, self.data, [(self.units[i], self.skip.get(i, ())) for i in share]),
                metadata,
                schema,
                per_task_row_limit,
            )
            for share in shares
        ]


def _read(data: Data, share: Sequence[tuple[files.Unit, Collection[int]]]) -> Iterator[pa.Table]:
    columns = files.all_columns(data)
    yield cleaning.schema(columns).empty_table()  # a share whose every row is skipped still has columns
    for unit, skip in share:
        yield from files.read_unit(unit, data, columns, skip)
