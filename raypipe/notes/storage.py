"""Where files are: a local path or a pyarrow/fsspec URI, a file, a folder or a glob. Credentials never reach messages.

Small tables (labels, tasks) are read here whole; notes are streamed by notes/files.py.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import fnmatch
import io
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raypipe.errors import InputError, Problem
from raypipe.guard import limits
from raypipe.guard.quiet import of_disk

# http(s) is left out on purpose: a config must not make a cluster fetch from its own network (SSRF)
SCHEMES = ("file", "s3", "gs", "abfs", "abfss", "hdfs", "memory")
FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".csv": "csv", ".csv.gz": "csv"}
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
CSV_ROWS = 16_384  # of labels that are decoded at a time
LONGEST_CELL = 8_000_000  # characters of a CSV table of labels: they may stand beside the notes
_MAX_HEADER = 1_000_000  # characters of the first line of a CSV file
NOT_UTF8 = "save it as UTF-8, or make a project with `raypipe init --encoding`"  # what to do about such a table
# What reading a broken file may raise
BROKEN = (pa.ArrowException, OSError, EOFError, ValueError, csv.Error, zlib.error)


@dataclass(frozen=True)
class File:
    """One file of an input. `path` is relative to `filesystem` and holds no credential."""

    filesystem: fs.FileSystem
    path: str
    format: str  # parquet, jsonl or csv
    size: int
    mtime_ns: int | None  # None if the store does not tell
    encoding: str = "utf-8-sig"  # of a CSV file: with or without a byte-order mark


def redact(uri: str) -> str:
    """The URI without user, password, key or query: what messages and manifests may hold."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:/*).*@", r"\1", uri.partition("?")[0] if _SCHEME.match(uri) else uri)


def find(uri: str, field: str) -> list[File]:
    """The files that `uri` names, sorted by path. `field` is the config key, for messages.

    A folder is searched recursively; files and folders whose names start with `_` or `.` are skipped. Raises
    `InputError` if there is no file, an unknown format or an unknown scheme.
    """
    filesystem, infos = _look(uri, field)
    files = [
        File(filesystem, info.path, kind, info.size or 0, info.mtime_ns)
        for info in infos
        if (kind := format_of(info.path)) and not _is_aside(info.base_name)
    ]
    if not files:
        raise InputError([Problem(field, f"{redact(uri)}: no file with one of {', '.join(FORMATS)}")])
    if len({file.format for file in files}) > 1:
        raise InputError([Problem(field, f"{redact(uri)}: files of different formats; name one kind by a glob")])
    return files


def _is_aside(name: str) -> bool:
    return name[:1] in ("_", ".")


def format_of(path: str) -> str | None:
    """parquet, jsonl, csv, or None."""
    return next((kind for ending, kind in FORMATS.items() if path.lower().endswith(ending)), None)


def listing(uri: str, field: str) -> list[list[str | int | None]]:
    """[path, size, mtime_ns] of every file that counts: the part of an input that enters fingerprints."""
    return without_strays([[info.path, info.size, info.mtime_ns] for info in _look(uri, field)[1]])


def without_strays(listed: list[list[str | int | None]]) -> list[list[str | int | None]]:
    """A listing less what editors and programs leave in a folder: files and folders that begin with `_` or `.`."""
    if not listed:
        return listed
    # the folder that was listed, or one below it
    base = os.path.commonpath([os.path.dirname(str(entry[0])) for entry in listed])
    n = len(base.rstrip("/").split("/")) if base else 0
    return [entry for entry in listed if not any(map(_is_aside, str(entry[0]).split("/")[n:]))] or listed


def read_strings(uri: str, columns: Sequence[str], field: str, fix: str = "") -> pa.Table:
    """A small table, whole, with exactly `columns`, all strings.

    Integers become their digits; CSV cells are never parsed (007 stays 007); other types are refused. `fix`: what to do
    about a missing column, for the message.
    """
    tables = []
    for file in find(uri, field):
        try:
            present, table = _read(file, columns)
        except BROKEN as error:
            problem = Problem(f"{field}: {file.path}", f"cannot be read ({type(error).__name__})")
            raise unreadable(error, file.filesystem, file.path, problem) from None
        except InputError as error:  # it names the line
            raise InputError(
                [replace(problem, where=f"{field}: {problem.where}") for problem in error.problems]
            ) from None
        missing = [name for name in columns if name not in present]
        if twice := [name for name in columns if present.count(name) > 1]:
            raise InputError([Problem(f"{field}: {file.path}", f"the column {', '.join(twice)} is there twice")])
        if missing:
            close = {name: difflib.get_close_matches(name, present, n=1) for name in missing}
            names = [f"{name} (there is {close[name][0]!r})" if close[name] else name for name in missing]
            raise InputError([Problem(f"{field}: {file.path}", f"no column {', '.join(names)}{fix}")])
        tables.append(pa.table({name: _strings(table[name], name, file, field) for name in columns}))
    return pa.concat_tables(tables)


def unreadable(error: Exception, filesystem: fs.FileSystem, path: str, problem: Problem) -> InputError:
    """What to say of input that cannot be read: that the disk fails, if that is why; else `problem`."""
    return (of_disk(error, path) if filesystem.type_name == "local" else None) or InputError([problem])


def opened(uri: str, field: str) -> tuple[fs.FileSystem, str]:
    """The file system that a path or URI names, and the path in it. Raises `InputError`."""
    match = _SCHEME.match(uri)
    if match is None:
        return fs.LocalFileSystem(), os.path.abspath(uri)  # a Ray worker has another working directory
    if match[1] not in SCHEMES:
        raise InputError([Problem(field, f"{match[1]}:// is not allowed; use a path or one of {', '.join(SCHEMES)}")])
    try:
        if match[1] == "memory":
            return fs.FileSystem.from_uri("fsspec+" + uri)
        # wildcards are no legal URI characters, so only the part before them is parsed, with the store's own options
        whole, mark, options = uri.partition("?")
        base = re.split(r"(?<=/)[^/]*[*\[]", whole)[0]
        filesystem, path = fs.FileSystem.from_uri(base + mark + options)
        return filesystem, f"{path.rstrip('/')}/{whole[len(base) :]}" if base != whole else path
    except Exception as error:  # each store raises its own type, and its text may quote the URI with a key
        raise InputError([Problem(field, f"{redact(uri)} cannot be opened ({type(error).__name__})")]) from None


def _look(uri: str, field: str) -> tuple[fs.FileSystem, list[fs.FileInfo]]:
    filesystem, path = opened(uri, field)
    try:
        infos = sorted(_infos(filesystem, path), key=lambda info: info.path)
    except BROKEN as error:
        problem = Problem(field, f"{redact(uri)} cannot be read ({type(error).__name__})")
        raise unreadable(error, filesystem, path, problem) from None
    if not infos:
        raise InputError([Problem(field, f"{redact(uri)}: no such file or folder")])
    return filesystem, infos


def _infos(filesystem: fs.FileSystem, path: str) -> list[fs.FileInfo]:
    """The files at a path, under a folder, or matching a glob (`*` does not cross a `/`, `**` does)."""
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound and any(character in path for character in "*?["):
        base = re.split(r"[^/]*[*?\[]", path)[0]
        below = filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
        pattern = _glob(path)
        files = [info for info in below if info.is_file and limits.fullmatch(pattern, info.path) is not None]
        return files if any(map(_is_aside, path[len(base) :].split("/")[:-1])) else _in_plain_folders(files, base)
    if info.type == fs.FileType.Directory:
        files = [info for info in filesystem.get_file_info(fs.FileSelector(path, recursive=True)) if info.is_file]
        return _in_plain_folders(files, path)
    return [info] if info.is_file else []


def _in_plain_folders(files: Sequence[fs.FileInfo], base: str) -> list[fs.FileInfo]:
    """Those without a folder below `base` that programs keep for themselves (.ipynb_checkpoints, _delta_log)."""
    n = len(base.rstrip("/").split("/"))
    return [info for info in files if not any(map(_is_aside, info.path.split("/")[n:-1]))]


def _glob(pattern: str) -> str:
    """A regular expression, from a shell pattern in which `*` stays inside one folder."""
    parts = re.split(r"(\*\*/?|\*)", pattern)
    stars = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    # fnmatch.translate("a?") is r"(?s:a.)\Z"; we want what is inside
    return "".join(stars.get(part) or fnmatch.translate(part)[len("(?s:") : -len(")\\Z")] for part in parts)


def _read(file: File, columns: Sequence[str]) -> tuple[list[str], pa.Table]:
    """The names of all columns of a file, and those of `columns` that it has."""
    if file.format == "jsonl":
        with file.filesystem.open_input_stream(file.path) as stream:  # gz is decompressed, by its ending
            return _records(io.BufferedReader(stream), columns)
    if file.format == "parquet":
        with file.filesystem.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            refuse_extensions(parquet.schema_arrow, file)
            names = parquet.schema_arrow.names
            return names, parquet.read(columns=[name for name in columns if name in names])
    with open_csv(file, LONGEST_CELL) as (names, lines):
        here = [name for name in dict.fromkeys(columns) if name in names]
        if not here or any(names.count(name) > 1 for name in here):
            return names, pa.table({})
        at = {name: names.index(name) for name in here}
        out = [pa.table({name: pa.array([], pa.string()) for name in here})]
        while some := list(islice(lines, CSV_ROWS)):
            cells = {name: [row[i] if i < len(row) else None for row in some] for name, i in at.items()}
            out.append(pa.table({name: _column(of_name) for name, of_name in cells.items()}))
        return names, pa.concat_tables(out)


def _records(lines: Iterable[bytes], columns: Sequence[str]) -> tuple[list[str], pa.Table]:
    """Columns of JSONL. Values stay as they are written: Arrow's own reader makes a time of "2024-01-01"."""
    present, cells = dict[str, None](), {name: list[Any]() for name in columns}
    for line in lines:
        if line.strip():
            record = json_record(line)
            present |= dict.fromkeys(record)
            for name in columns:
                value = record.get(name)
                is_number = isinstance(value, int) and not isinstance(value, bool)
                cells[name].append(str(value) if is_number else value)
    return list(present), pa.table({name: _column(cells[name]) for name in columns if name in present})


def json_record(line: bytes) -> dict[str, Any]:
    """One line of JSONL; broken bytes become lone surrogates. Raises ValueError if it is no JSON object.

    12.0 is 12: so JSON writers leave whole numbers of a column that has gaps.
    """
    try:
        record = json.loads(line.decode("utf-8-sig", errors="surrogateescape"), parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    return record


def _number(digits: str) -> float | int:
    number = float(digits)
    return int(number) if number.is_integer() else number


def _column(cells: list[Any]) -> pa.Array:
    """Strings, those that are no UTF-8 as they came; or what is none of them. `_strings` refuses both."""
    others = [None if isinstance(cell, str) else cell for cell in cells]
    if others.count(None) < len(others):
        return pa.array(others)
    encoded = [None if cell is None else cell.encode("utf-8", "surrogatepass") for cell in cells]
    return pa.array(encoded, pa.binary()).view(pa.string())


@contextlib.contextmanager
def open_csv(file: File, longest: int, needed: Collection[str] = ()) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The names of the columns, and the rows below that are not blank; broken bytes become lone surrogates.

    The delimiter is the one of comma, semicolon (so European spreadsheets write CSV) and tab that the first line has
    most of, outside quotes. `longest`: characters of a cell. The rows raise `InputError` with the line where a quote is
    not closed, a cell is too long, or a row has more cells than there are names: after a text with delimiters and no
    quotes all stands in wrong columns. So does one that ends before a column of `needed`: a line break without quotes
    cut the text.
    """
    csv.field_size_limit(longest)
    with file.filesystem.open_input_stream(file.path) as stream:
        text = io.TextIOWrapper(io.BufferedReader(stream), encoding=file.encoding, errors="surrogateescape", newline="")
        first = text.readline(_MAX_HEADER)
        delimiter = max((",", ";", "\t"), key=re.sub(r'"[^"]*"', "", first).count)
        whole = (2 * longest + 4) * (first.count(delimiter) + 1)  # all of it quotes, which are doubled
        reader = csv.reader(chain([first], _lines(text, whole)), delimiter=delimiter, strict=True)
        names = next(reader, [])
        least = 1 + max((names.index(name) for name in needed), default=-1)
        yield names, _rows(reader, file.path, names, least, longest)


def _rows(reader: Any, path: str, names: Sequence[str], least: int, longest: int) -> Iterator[list[str]]:
    try:
        for row in reader:
            what = None
            if any(row[len(names) :]):
                what = f"{len(row)} cells under {len(names)} names of columns: quote what holds the delimiter"
            elif len(row) < least and any(cell.strip() for cell in row):
                what = f"ends before the column {names[least - 1]!r}: quote what holds a line break"
            if what is not None:
                raise InputError([Problem(f"{path}:{reader.line_num}", what)])
            if any(cell.strip() for cell in row):  # whatever is needed, so that all passes number the same rows
                yield row
    except csv.Error:
        what = f"not valid CSV: a quote that is not closed or not doubled, or a cell over {longest:,} characters"
        raise InputError([Problem(f"{path}:{reader.line_num}", what)]) from None


def _lines(text: io.TextIOWrapper, longest: int) -> Iterator[str]:
    """Lines of CSV. A longer one holds a cell beyond csv's limit, which would see it only when all of it is read."""
    while line := text.readline(longest + 1):
        if len(line) > longest:
            raise csv.Error("line too long")
        yield line


def refuse_extensions(schema: pa.Schema, file: File) -> None:
    """Ray's and pickle's Arrow extension types may run code when they are read (CVE-2026-41486): not read at all."""
    for column in schema:
        metadata = column.metadata or {}
        if isinstance(column.type, pa.BaseExtensionType) or b"ARROW:extension:name" in metadata:
            what = f"column {column.name} has an Arrow extension type; write plain columns"
            raise InputError([Problem(file.path, what)])


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text of any width, also dictionary-encoded. A column of nulls passes here."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


def _strings(column: pa.ChunkedArray, name: str, file: File, field: str) -> pa.ChunkedArray:
    kind = column.type
    if not is_text(kind) and not pa.types.is_integer(kind):
        what = f"column {name} holds {kind}; write text or whole numbers"
        raise InputError([Problem(f"{field}: {file.path}", what)])
    try:
        out = column.cast(pa.string())
        out.validate(full=True)
    except pa.ArrowInvalid:
        raise InputError([Problem(f"{field}: {file.path}", f"column {name} is not UTF-8; {NOT_UTF8}")]) from None
    return out
