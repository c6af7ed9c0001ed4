"""Notes, and what steps stored, as Ray datasets.

Ray's own readers are not used, because they guess types per block (CSV ids lose their zeros, broken UTF-8 becomes a
binary column, a column that is null in one block gets another type) and because Ray 2.60's Parquet reader puts a folder
into one block and cannot be made to verify checksums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray.data
from ray.data import DataContext, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.notes import cleaning
from raypipe.notes.files import all_columns, kept_rows
from raypipe.notes.reading import read_unit, units
from raypipe.settings.config import Data

_read = quiet(read_unit)
_UNKNOWN = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, task_exec_stats=None)
BATCH = 1024  # stored rows that are read at once: relevance at all layers takes a tenth of a megabyte a row


class Files(Datasource):
    """One block per read, each a function that yields tables of `schema`."""

    def __init__(self, reads: Sequence[Callable[[], Iterator[pa.Table]]], schema: pa.Schema) -> None:
        super().__init__()
        self.reads, self.schema = reads, schema

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: a compressed file does not say what it holds."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task per read."""
        return [ReadTask(read, _UNKNOWN, self.schema, per_task_row_limit) for read in self.reads]

    def dataset(self) -> ray.data.Dataset:
        """As many blocks as reads, or Ray would cut each of them into 200."""
        return ray.data.read_datasource(self, override_num_blocks=len(self.reads))


def read_notes(data: Data, rows_per_block: int) -> ray.data.Dataset:
    """The notes as a Ray dataset of `rows.NOTES` (and `tags`, if configured), in blocks of `rows_per_block` rows.

    Each row is validated as it is read. Raises `InputError` before anything is read if a file or column is missing, or
    an id occurs twice.
    """
    todo, columns = units(data), all_columns(data)
    keep = kept_rows(data, todo)
    reads = [functools.partial(_read, unit, data, columns, keep.get(i)) for i, unit in enumerate(todo)]
    # the blocks that we want, whatever the files' sizes
    return Files(reads, cleaning.schema(columns)).dataset().repartition(target_num_rows_per_block=rows_per_block)


def read_stored(path: str, columns: Sequence[str] | None = None) -> ray.data.Dataset:
    """A Parquet file or folder that a step wrote, the checksums of its pages verified."""
    stored = rows.dataset(path)
    schema = stored.schema if columns is None else pa.schema([stored.schema.field(name) for name in columns])
    return Files([functools.partial(_read_file, file, columns) for file in sorted(stored.files)], schema).dataset()


def _read_file(path: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    dataset = rows.dataset(path)
    names = dataset.schema.names if columns is None else list(columns)
    for batch in dataset.to_batches(columns=names, batch_size=BATCH):
        yield pa.Table.from_batches([batch])
