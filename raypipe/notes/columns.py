"""A look at an unknown table: which column holds the text, the ids, the patients, the labels? For `raypipe init`.

Holds numbers, and the values of columns with a few distinct ones; never a text. Nothing here prints.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe.errors import Code, InputError, Problem
from raypipe.notes import cleaning, storage
from raypipe.notes.reading import raw_rows
from raypipe.settings.config import Data
from raypipe.settings.yamlfile import did_you_mean
from raypipe.words import I64

MAX_OPTIONS = 10  # distinct values of a column that looks like a label
MAX_LABEL = 40  # characters of a label
MAX_ID = 64  # characters of what looks like an id
MIN_TEXT = 15  # characters on average of what looks like a note
MIN_OF_CLASS = 5  # rows of the second most frequent value
MAX_NAME = 60  # characters of a column's name; a longer one is a line of data, and so is a number
SPLITS = {"train", "dev", "test"}
LIKE_SPLITS = re.compile(
    r"train(ing)?|dev(elopment)?|val(id|idation)?|test(ing)?|eval(uation)?|held.?out", re.IGNORECASE
)
PATIENT = re.compile(
    r"patient|pacient|paziente|subj|sogg|person|mrn|nosol|group|grupp|grp|fiscale|hadm|"
    # begins a word, and one that is no disease (patologia, pathology)
    r"(?:(?<![a-z])|(?<=id)|(?<=cod)|(?<=nr)|(?<=num))(?:pat(?!h|[oó]l)|paz)",
    re.IGNORECASE,
)
_NOT_UTF8 = "not UTF-8: of a .csv, say how it is written (Excel: `--encoding cp1252`), and a copy is made"
NOTE = re.compile(r"(?<![a-z])(id|note|nota|refert|report|doc|record|key|cod)", re.IGNORECASE)


@dataclass
class Column:
    """What was counted of one column."""

    name: str
    n_rows: int = 0
    n_filled: int = 0
    n_unusable: int = 0  # neither text nor whole numbers
    n_broken: int = 0  # of these: text, but no UTF-8
    n_characters: int = 0
    longest: int = 0
    hashes: array[int] = field(default_factory=lambda: array("q"))  # of all values that are short: 8 bytes each
    values: Counter[str] | None = field(default_factory=Counter)  # None: more than MAX_OPTIONS

    def add(self, raw: Iterable[Any]) -> None:
        """Count some more rows."""
        for value in raw:
            self.n_rows += 1
            is_number = isinstance(value, int) and not isinstance(value, bool)
            text = str(value) if is_number else cleaning.as_text(value)
            if text is None or not text.strip():
                self.n_unusable += value is not None and text is None
                self.n_broken += text is None and _is_broken(value)
                continue
            self.n_filled += 1
            self.n_characters += len(text)
            self.longest = max(self.longest, len(text))
            if len(text) <= cleaning.MAX_ID:
                self.hashes.append(hash(text))
            if self.values is not None:
                self.values[text] += 1
                if len(self.values) > MAX_OPTIONS or len(text) > cleaning.MAX_ID:
                    self.values = None

    @property
    def mean(self) -> float:
        """Characters of a filled cell."""
        return self.n_characters / max(1, self.n_filled)

    @property
    def distinct(self) -> I64:
        """Hashes of the distinct short values."""
        return np.unique(np.frombuffer(self.hashes, np.int64))

    @property
    def n_distinct(self) -> int:
        """How many short values there are."""
        return len(self.distinct)

    def n_in_common(self, other: Column) -> int:
        """How many short values are also in another column."""
        return len(np.intersect1d(self.distinct, other.distinct, assume_unique=True))

    @property
    def is_unique(self) -> bool:
        """Has every row a short value of its own?"""
        return 0 < self.n_distinct == self.n_filled == self.n_rows and self.longest <= MAX_ID

    @property
    def options(self) -> list[str]:
        """The values of a column that looks like a label; else none."""
        if self.values is None or self.n_unusable or self.longest > MAX_LABEL:
            return []
        frequent = sorted(self.values.values(), reverse=True)
        return sorted(self.values) if len(frequent) > 1 and frequent[1] >= MIN_OF_CLASS else []

    @property
    def why_no_label(self) -> str:
        """Why it is not taken for a label."""
        if self.n_unusable:
            return "holds neither text nor whole numbers"
        if not self.n_filled:
            return "is empty"
        if self.values is None:
            return f"more than {MAX_OPTIONS} different values"
        if self.longest > MAX_LABEL:
            return "longer values than a label has"
        n_other = self.n_filled - max(self.values.values())
        if not n_other:
            return "one value in every row"
        return f"one value but for {n_other} of {self.n_filled:,} rows: too few to learn and test"


def look(path: str, option: str) -> list[Column]:
    """The columns of a table: .parquet, .jsonl or .csv. `option`: what named it, for messages.

    Raises `InputError` if it cannot be read, or if its first line holds data in place of names.
    """
    columns: dict[str, Column] = {}
    for file in storage.find(path, option):
        names, rows = raw_rows(file, Data().max_chars)
        if names.count("") == 1:
            names.remove("")  # the row numbers that pandas writes are nothing that a config could name
        if any(map(_is_broken, names)):
            raise InputError([Problem(f"{option}: {file.path}", f"names of columns are {_NOT_UTF8}")])
        if not names or any(map(_is_data, names)):
            what = "the first line does not look like names of columns; add a line with names"
            raise InputError([Problem(f"{option}: {file.path}", what)])
        if len(set(names)) < len(names):
            raise InputError([Problem(f"{option}: {file.path}", "two columns have the same name")])
        for raw in rows:
            for name in names:
                columns.setdefault(name, Column(name)).add(raw[name])
    if not any(column.n_filled for column in columns.values()):
        raise InputError([Problem(option, f"{storage.redact(path)} holds no row")])
    return list(columns.values())


def not_utf8(columns: Sequence[Column], option: str) -> list[Problem]:
    """A column with so many broken cells that no run would go to its end; a few become dead letters."""
    worst = max(columns, key=lambda column: column.n_broken / max(1, column.n_rows))
    if worst.n_broken <= Data().max_error_rate * worst.n_rows:
        return []
    share = f"{worst.n_broken:,} of {worst.n_rows:,} cells of {worst.name!r}"
    return [Problem(option, f"{share} are {_NOT_UTF8}")]


def _is_broken(value: Any) -> bool:
    """Is it text that cannot be written as UTF-8?"""
    return isinstance(value, str | bytes) and not isinstance(value, Code) and cleaning.as_text(value) is None


def _is_data(name: str) -> bool:
    """Is it a cell of a table without a line of names? Names are printed, and cells must not be."""
    return not name.strip() or len(name) > MAX_NAME or "\n" in name or re.fullmatch(r"[\d.,:/ -]+", name) is not None


def named(columns: Sequence[Column], name: str, option: str) -> Column:
    """The column called `name`. Raises `InputError` if there is none."""
    names = [column.name for column in columns]
    if name not in names:
        raise InputError([Problem(option, f"there is no column {name!r}{did_you_mean(name, names)}")])
    return columns[names.index(name)]


def text_of(columns: Sequence[Column]) -> tuple[Column, str]:
    """The column with the notes, and why. Raises `InputError` if none looks like it."""
    best = max(columns, key=lambda column: column.mean)
    if best.mean < MIN_TEXT:
        raise InputError([Problem("--text", "no column looks like notes: name it")])
    others = [column.name for column in columns if column is not best and column.values is None and column.mean > 60]
    more = f"; also long: {', '.join(others[:3])}" if others else ""
    return best, f"the longest text, {best.mean:.0f} characters on average{more}"


def id_of(columns: Sequence[Column], option: str = "--id") -> tuple[Column, str]:
    """The column with the ids of notes, and why. Raises `InputError` if no column has a value of its own per row."""
    unique = [column for column in columns if column.is_unique]
    if not unique:
        what = (
            "no column has a value of its own in every row: name the notes' ids, or let `--number-rows` make a copy "
            "with numbers"
        )
        raise InputError([Problem(option, what)])
    telling = [column for column in unique if NOTE.search(column.name) and not PATIENT.search(column.name)]
    return (telling or unique)[0], "a value of its own in every row"


def group_of(columns: Sequence[Column]) -> tuple[Column | None, str]:
    """The column with the patients, by its name, and why; None if no name says so."""
    by_name = [c for c in columns if PATIENT.search(c.name) and c.n_filled and c.longest <= MAX_ID and not c.options]
    if by_name:
        best = min(by_name, key=lambda column: column.n_distinct)
        return best, f"its name says so; {best.n_distinct:,} values in {best.n_filled:,} rows"
    repeated = [c.name for c in columns if c.values is None and c.longest <= MAX_ID and c.n_distinct < c.n_filled]
    hint = f" (perhaps {', '.join(repeated[:3])})" if repeated else ""
    return None, f"no column's name says patient: notes of one patient may be in two splits; name it with --group{hint}"


def split_of(columns: Sequence[Column]) -> Column | None:
    """The column with train, dev and test."""
    return next((c for c in columns if c.values and {"train"} < set(c.values) <= SPLITS and c.n_unusable == 0), None)


def like_a_split(columns: Sequence[Column]) -> Column | None:
    """A column that says training and test in other words than raypipe reads: no label."""
    for column in columns:
        values = set(column.values or ())
        if len(values) > 1 and not values <= SPLITS and all(map(LIKE_SPLITS.fullmatch, values)):
            return column
    return None
