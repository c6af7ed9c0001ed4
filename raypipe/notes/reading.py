"""Files of notes, row by row and in bounded memory: Parquet by row group, JSONL and CSV by line.

A file becomes raw values here, whatever it holds; cleaning.py judges each row.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.errors import Code, InputError, Problem
from raypipe.notes import cleaning, storage
from raypipe.notes.placeholders import Replacer
from raypipe.notes.storage import File
from raypipe.settings.config import Data
from raypipe.settings.yamlfile import did_you_mean

TEXT_ROWS, ID_ROWS = 64, 16_384  # rows decoded at a time: bounds what a compressed file can blow up to
_LONGEST_NAME = 131_072  # characters
_MAX_ESCAPE = 12  # bytes that JSON may spend on one character


@dataclass(frozen=True)
class Unit:
    """What one reader reads: a file, or one row group of a Parquet file."""

    file: File
    row_group: int | None = None


Mask = npt.NDArray[np.bool_]


def units(data: Data, field: str = "data.notes") -> list[Unit]:
    """All units of the input, in order. Raises `InputError` naming file and column if one is missing or unusable.

    `field`: the config key that `data.notes` was taken from, for messages.
    """
    if data.notes is None:
        raise InputError([Problem(field, "is not set: where are the notes?")])
    out: list[Unit] = []
    problems: list[Problem] = []
    for file in storage.find(data.notes, field):
        try:
            out += _units(file, data)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not out:
        raise InputError([Problem(field, f"{storage.redact(data.notes)}: holds no note")])
    return out


def of_pretraining(data: Data) -> Data:
    """`data.for_pretraining`, with the groups if all of its files have them: dev and test patients are held out then.

    Raises `InputError` if there is no file or one cannot be read.
    """
    own, group = data.for_pretraining, data.columns.group_id
    if data.pretraining is None or group is None:
        return own
    for file in storage.find(data.pretraining, "data.pretraining"):
        if file.format != "jsonl" and group not in dict(_parts(file)[0]):
            return own
    return own.model_copy(update={"columns": own.columns.model_copy(update={"group_id": group})})


def read_unit(unit: Unit, data: Data, columns: Sequence[str], selected: Mask | None = None) -> Iterator[pa.Table]:
    """The rows of one unit as small tables of `cleaning.schema(columns)`; only those that `selected` marks."""
    replace = Replacer(data) if data.placeholders and "text" in columns else None
    reads = {*columns, *(["spans"] if replace is not None and replace.reads_spans else [])}
    names = {ours: theirs for ours, theirs in _named(data).items() if ours in reads}
    place = cleaning.hashed(unit.file.path) + (f".{unit.row_group}" if unit.row_group is not None else "")
    first = 0
    yield cleaning.schema(columns).empty_table()  # a unit without rows still has columns
    with _file_trouble(unit.file):
        for raw in _RAW[unit.file.format](unit, names, data.max_chars):
            table = cleaning.clean(raw, columns, data.max_chars, place, first, replace)
            first += table.num_rows
            yield table if selected is None else table.filter(pa.array(selected[first - table.num_rows : first]))


def tables(data: Data, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of all units, one after the other, as `read_unit` yields them."""
    return itertools.chain.from_iterable(read_unit(unit, data, columns) for unit in units(data))


def _named(data: Data) -> dict[str, str]:
    """Our name -> the file's name of each column to read."""
    columns = data.columns
    return {ours: theirs for ours, theirs in columns.model_dump().items() if theirs is not None}


def _units(file: File, data: Data) -> list[Unit]:
    """The units of one file. A JSONL file has no header to check: a missing key shows row by row."""
    columns, parts = _parts(file)
    if file.format != "jsonl":
        _require(file, columns, data)
    return parts


def _parts(file: File) -> tuple[list[tuple[str, pa.DataType]], list[Unit]]:
    """The columns of a file with their types (of JSONL: none are promised), and what reads it."""
    if file.format == "jsonl":
        return [], [Unit(file)]
    with _file_trouble(file):
        if file.format == "csv":
            with storage.open_csv(file, _LONGEST_NAME) as (header, _):
                return [(name, pa.string()) for name in header], [Unit(file)]
        with file.filesystem.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            storage.refuse_extensions(parquet.schema_arrow, file)
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            columns = [(field.name, field.type) for field in parquet.schema_arrow]
            return columns, [Unit(file, i) for i, n_rows in enumerate(sizes) if n_rows]


def raw_rows(file: File, max_chars: int) -> tuple[list[str], Iterator[cleaning.Raw]]:
    """The names of all columns of a file, and its rows as they are, some at a time. For a look at an unknown table."""
    columns, parts = _parts(file)
    names = [name for name, _ in columns]  # two columns may have one name
    if file.format == "jsonl":
        with _file_trouble(file), file.filesystem.open_input_stream(file.path) as stream:
            records = (_record(line) for line in itertools.islice(_lines(stream, _MAX_ESCAPE * max_chars), TEXT_ROWS))
            names = list(dict.fromkeys(name for record in records for name in record))
    same = {name: name for name in names}

    def rows() -> Iterator[cleaning.Raw]:
        with _file_trouble(file):
            for unit in parts:
                yield from _RAW[file.format](unit, same, max_chars)

    return names, rows()


def _require(file: File, columns: Sequence[tuple[str, pa.DataType]], data: Data) -> None:
    """Every configured column exists, once, and holds text (an id may be a whole number)."""
    problems = []
    types = dict(columns)
    for ours, theirs in _named(data).items():
        kind = types.get(theirs)
        if [name for name, _ in columns].count(theirs) > 1:
            problems.append(Problem(f"data.columns.{ours}", f"{file.path} has the column {theirs!r} twice"))
            continue
        if kind is None:
            hint = did_you_mean(theirs, types)
            problems.append(Problem(f"data.columns.{ours}", f"{file.path} has no column {theirs!r}{hint}"))
        elif not storage.is_text(kind) and not (ours.endswith("_id") and pa.types.is_integer(kind)):
            problems.append(Problem(f"data.columns.{ours}", f"{file.path}: column {theirs!r} holds {kind}, not text"))
    if problems:
        raise InputError(problems)


def _parquet(unit: Unit, names: Mapping[str, str], max_chars: int) -> Iterator[cleaning.Raw]:
    n_rows = TEXT_ROWS if "text" in names else ID_ROWS
    with unit.file.filesystem.open_input_file(unit.file.path) as source:
        parquet = pq.ParquetFile(source, page_checksum_verification=True)
        for batch in parquet.iter_batches(
            n_rows, row_groups=[unit.row_group], columns=list(dict.fromkeys(names.values()))
        ):
            yield {ours: _values(batch.column(theirs)) for ours, theirs in names.items()}


def _values(column: pa.Array) -> list[Any]:
    """Text as bytes, because Arrow reads broken UTF-8 without complaint and then fails to make a string of it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return (column.cast(pa.large_binary()) if storage.is_text(column.type) else column).to_pylist()


def _jsonl(unit: Unit, names: Mapping[str, str], max_chars: int) -> Iterator[cleaning.Raw]:
    with unit.file.filesystem.open_input_stream(unit.file.path) as stream:
        records = (_record(line) for line in _lines(stream, _MAX_ESCAPE * max_chars + 65_536))
        yield from _batches(({ours: record.get(theirs) for ours, theirs in names.items()} for record in records), names)


def _record(line: bytes | None) -> dict[str, Any]:
    """One JSON object. A line that is none becomes an object whose every column is the error code."""
    if line is None:
        return _Verdict(Code.TOO_BIG)
    try:
        return storage.json_record(line)
    except ValueError:
        return _Verdict(Code.TYPE)


class _Verdict(dict[str, Any]):
    """Stands for a line that is not a record: every column of it is the error code."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def get(self, key: str, default: Any = None) -> Code:
        return self.code


def _lines(stream: Any, limit: int) -> Iterator[bytes | None]:
    """Lines that are not blank; None for a line over `limit` bytes, which is skipped in bounded memory."""
    reader = io.BufferedReader(stream)
    while line := reader.readline(limit):
        if len(line) == limit and not line.endswith(b"\n"):
            while (rest := reader.readline(1 << 20)) and not rest.endswith(b"\n"):
                pass
            yield None
        elif line.strip():
            yield line


def _csv(unit: Unit, names: Mapping[str, str], max_chars: int) -> Iterator[cleaning.Raw]:
    needed = [names[ours] for ours in ("note_id", "text") if ours in names]
    with storage.open_csv(unit.file, max(131_072, 8 * max_chars), needed) as (header, rows):
        at = {ours: header.index(theirs) for ours, theirs in names.items()}
        yield from _batches(({ours: row[i] if i < len(row) else None for ours, i in at.items()} for row in rows), names)


def _batches(records: Iterator[dict[str, Any]], names: Mapping[str, str]) -> Iterator[cleaning.Raw]:
    while batch := list(itertools.islice(records, TEXT_ROWS)):
        yield {ours: [record[ours] for record in batch] for ours in names}


@contextlib.contextmanager
def _file_trouble(file: File) -> Iterator[None]:
    """Errors inside a file become its path and the type of the error: a library's message may quote the file."""
    try:
        yield
    except storage.BROKEN as error:
        what = type(error).__name__
        if isinstance(error, OSError) and file.filesystem.type_name != "local":
            what += f": {error}"  # a store's client names the store alone, and Ray retries by this message
        problem = Problem(file.path, f"cannot be read ({what})")
        raise storage.unreadable(error, file.filesystem, file.path, problem) from None


_RAW = {"parquet": _parquet, "jsonl": _jsonl, "csv": _csv}
