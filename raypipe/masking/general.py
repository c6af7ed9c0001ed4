"""Word counts of general language, with which the corpus is compared. The user supplies them, in its language."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from raypipe.errors import InputError
from raypipe.words import normalise


def read_counts(path: str) -> dict[str, int]:
    """Columns `word` and `count` of a Parquet file, or of a .csv or .tsv file with a header. Words in lower case.

    Raises `InputError` if the file or one of its two columns cannot be read.
    """
    try:
        table = _read(path).select(["word", "count"]).cast(pa.schema([("word", pa.string()), ("count", pa.int64())]))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: needs columns word and count: {type(error).__name__}") from error
    counts: Counter[str] = Counter()
    for word, count in zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True):
        if word is not None and count is not None:
            counts[normalise(word).lower()] += count
    return dict(counts)


def _read(path: str) -> pa.Table:
    if Path(path).suffix == ".parquet":
        return pq.read_table(path)
    delimiter = "\t" if Path(path).suffix == ".tsv" else ","
    return csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False if delimiter == "\t" else '"'),
        convert_options=csv.ConvertOptions(column_types={"word": pa.string()}, strings_can_be_null=False),
    )
