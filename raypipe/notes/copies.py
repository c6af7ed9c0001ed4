"""A copy of a user's table that raypipe can read: UTF-8 where the table is not, row numbers where it has no ids.

For `raypipe init`, and only where the user says so: a copy of notes holds their text.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.notes import reading, storage
from raypipe.settings.config import Data

UTF8 = "utf-8-sig"
NUMBER = "row_number"


def write(table: str, option: str, out: Path, encoding: str | None, is_numbered: bool) -> None:
    """`table` as one CSV file at `out`; `encoding`: of the table. `option`: what named it, for messages.

    Bytes that are no text in this encoding stay as they are. Raises `InputError` if the table cannot be read.
    """
    encoding = UTF8 if encoding is None else encoding
    try:
        "".encode(encoding)
    except (LookupError, ValueError):  # none, one of bytes (hex), or no name at all
        raise InputError([Problem("--encoding", f"{encoding!r} is no encoding; Excel's is cp1252")]) from None
    files = storage.find(table, option)
    if files[0].format != "csv":
        raise InputError([Problem(f"{option}: {files[0].path}", "is no .csv file, and only such a one is copied")])
    header: list[str] | None = None
    n_rows = 0
    with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        for each in files:
            names, rows = reading.raw_rows(replace(each, encoding=encoding), Data().max_chars)
            if header is None:
                writer.writerow([*([NUMBER] if is_numbered else []), *names])
            elif names != header:
                raise InputError([Problem(f"{option}: {each.path}", "its columns differ from those of the first file")])
            header = names
            for batch in rows:
                for cells in zip(*(batch[name] for name in names), strict=True):
                    n_rows += 1
                    writer.writerow([*([n_rows] if is_numbered else []), *cells])
