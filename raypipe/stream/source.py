"""Notes, and what steps stored, as Ray datasets.

Ray's own readers are not used, because they guess types per block (CSV ids lose their zeros, broken UTF-8 becomes a
binary column, a column that is null in one block gets another type) and because Ray 2.60's Parquet reader puts a folder
into one block and cannot be made to verify checksums.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import ray.data
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.notes import cleaning
from raypipe.notes.files import all_columns, kept_rows
from raypipe.notes.reading import Mask, Unit, read_unit, units
from raypipe.settings.config import Data

_read = quiet(read_unit)
_UNKNOWN = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, task_exec_stats=None)
BATCH = 1024  # stored rows that are read at once: relevance at all layers takes a tenth of a megabyte a row


class NotesSource(Datasource):
    """Notes in files, each row validated as it is read."""

    def __init__(
        self, data: Data, columns: Sequence[str], units: Sequence[Unit], rows_to_keep: Mapping[int, Mask]
    ) -> None:
        super().__init__()
        self.data, self.columns, self.units, self.rows_to_keep = data, columns, units, rows_to_keep

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task per unit."""
        schema = cleaning.schema(self.columns)
        return [
            ReadTask(
                functools.partial(_read, unit, self.data, self.columns, self.rows_to_keep.get(i)),
                _UNKNOWN,
                schema,
                per_task_row_limit,
            )
            for i, unit in enumerate(self.units)
        ]


def read_notes(data: Data, rows_per_block: int) -> ray.data.Dataset:
    """The notes as a Ray dataset of `rows.NOTES` (and `tags`, if configured), in blocks of `rows_per_block` rows.

    Raises `InputError` before anything is read if a file or column is missing, or an id occurs twice.
    """
    todo = units(data)
    source = NotesSource(data, all_columns(data), todo, kept_rows(data, todo))
    # as many blocks as units, or Ray cuts each unit into 200; then the blocks that we want, whatever the files' sizes
    dataset = ray.data.read_datasource(source, override_num_blocks=len(todo))
    return dataset.repartition(target_num_rows_per_block=rows_per_block)


class StoredSource(Datasource):
    """Parquet files that steps wrote, the checksums of their pages verified."""

    def __init__(self, path: str, columns: Sequence[str] | None) -> None:
        super().__init__()
        self.dataset, self.columns = rows.dataset(path), columns

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task per file."""
        schema = self.dataset.schema
        if self.columns is not None:
            schema = pa.schema([schema.field(name) for name in self.columns])
        return [
            ReadTask(functools.partial(_read_file, path, self.columns), _UNKNOWN, schema, per_task_row_limit)
            for path in sorted(self.dataset.files)
        ]


def read_stored(path: str, columns: Sequence[str] | None = None) -> ray.data.Dataset:
    """A Parquet file or folder that a step wrote."""
    source = StoredSource(path, columns)
    return ray.data.read_datasource(source, override_num_blocks=len(source.dataset.files))


def _read_file(path: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    dataset = rows.dataset(path)
    names = dataset.schema.names if columns is None else list(columns)
    for batch in dataset.to_batches(columns=names, batch_size=BATCH):
        yield pa.Table.from_batches([batch])
