"""The same stages without Ray: in this process, one table after the other.

For what is small or already inside a worker (a trial of a search, an arm of a comparison) and for machines without Ray.
`Tables` is the part of `ray.data.Dataset` that pipeline.py uses, with the same meaning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.errors import InputError
from raypipe.notes.files import iter_notes
from raypipe.settings.config import Data, Model
from raypipe.training import examples


@dataclass
class Written:
    """Rows that the writing at hand has written so far; of training rows, the notes that they are of."""

    rows: int = 0


class Tables:
    """A stream of Arrow tables that is read when it is written, once for each writing."""

    def __init__(self, tables: Callable[[], Iterable[pa.Table]], written: Written) -> None:
        self._tables = tables
        self._written = written

    def _then(self, tables: Callable[[], Iterable[pa.Table]]) -> Tables:
        return Tables(tables, self._written)

    def map_batches(
        self,
        stage: Callable[..., Any],
        fn_constructor_args: Sequence[Any] = (),
        fn_kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Tables:
        """Every table through a function, or through a stage object that is made once."""

        def mapped() -> Iterator[pa.Table]:
            call = stage(*fn_constructor_args) if isinstance(stage, type) else stage
            for table in self._tables():
                yield call(table, **(fn_kwargs or {}))

        return self._then(mapped)

    def select_columns(self, columns: Sequence[str]) -> Tables:
        """Some columns, in this order."""
        return self._then(lambda: (table.select(columns) for table in self._tables()))

    def union(self, other: Tables) -> Tables:
        """These tables, then the others."""
        return self._then(lambda: (table for tables in (self, other) for table in tables._tables()))

    def repartition(
        self,
        num_blocks: int | None = None,
        *,
        keys: Sequence[str] | None = None,
        target_num_rows_per_block: int | None = None,
    ) -> Tables:
        """By `keys`: one table, so that rows with equal keys meet. Else tables of so many rows at most."""
        if keys is not None:
            return self._then(self._together)
        size = target_num_rows_per_block
        return self._then(
            lambda: (
                table.slice(start, size or len(table))
                for table in self._tables()
                for start in range(0, len(table), size or max(1, len(table)))
            )
        )

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        """The tables."""
        return iter(self._tables())

    def write_parquet(self, folder: str, **written: Any) -> None:
        """One file; an interrupted attempt's is replaced. `written`: pyarrow's options."""
        out, writer, written = Path(folder), None, {**rows.WRITE, **written}
        self._written.rows = 0
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        try:
            for table in self._tables():
                writer = writer or pq.ParquetWriter(out / "part-00000.parquet", table.schema, **written)
                writer.write_table(table)
                self._written.rows += examples.done(table)
        finally:
            if writer:
                writer.close()

    def _together(self) -> Iterator[pa.Table]:
        tables = list(self._tables())
        if tables:
            yield pa.concat_tables(tables).combine_chunks()


@dataclass(frozen=True)
class Inline:
    """What stands in for a cluster (cluster.Cluster): one worker, this process."""

    threads: int
    has_gpu: bool
    written: Written = field(default_factory=Written, compare=False)

    @classmethod
    def here(cls, use_gpu: bool | str) -> Inline:
        """This process, with as many threads as it was given."""
        import torch

        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has a number for each level
        if given and not (given.isdecimal() and int(given)):
            raise InputError(f"OMP_NUM_THREADS is {given!r}: set it to a number of threads, or not at all")
        threads = int(given or os.cpu_count() or 1)
        return cls(threads, use_gpu is not False and torch.cuda.is_available())

    cpus, gpus = 1.0, 0.0
    actors = 1

    def __str__(self) -> str:
        return "this process"

    def notes(self, data: Data, rows_per_block: int) -> Tables:
        """`files.iter_notes` in tables of `rows_per_block` rows at most."""
        return Tables(lambda: iter_notes(data), self.written).repartition(target_num_rows_per_block=rows_per_block)

    def parquet(self, path: str, columns: Sequence[str] | None = None) -> Tables:
        """The rows of a Parquet file or folder, file by file in the order of their names."""

        def read() -> Iterator[pa.Table]:
            for fragment in sorted(rows.dataset(path).get_fragments(), key=lambda f: f.path):
                yield fragment.to_table(columns=None if columns is None else list(columns))

        return Tables(read, self.written)

    def rows_written(self, out: Path) -> int:
        """Of what is being written now, for progress."""
        return self.written.rows

    def leave(self) -> None:
        """Nothing works elsewhere."""

    def peak(self, model: Model) -> Callable[[], None]:
        """Not measured: the one file that grows cannot be read on the way."""
        return lambda: None

    @contextmanager
    def resumable(self, out: Path) -> Iterator[None]:
        """In one process an interrupted step starts anew."""
        yield

    def on_devices(self) -> dict[str, Any]:
        """Options of `map_batches`; none are needed here, nor for the two below."""
        return {}

    spread = light = on_devices
