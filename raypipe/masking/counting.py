"""Counts over a corpus as small tables that add up: one per block of notes, merged in any order.

`count_block` and `relevance_block` are what a Ray Data map runs; `merge` is the aggregation (all counts are sums).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from raypipe.errors import RowError
from raypipe.masking.case import Note
from raypipe.words import word_spans

GRAMS = pa.schema([("gram", pa.string()), ("n", pa.int8()), ("count", pa.int64()), ("n_notes", pa.int64())])
TYPES = pa.schema(
    [("gram", pa.string()), ("n_seen", pa.int64()), ("relevance", pa.float64()), ("n_important", pa.int64())]
)
_KEYS = ("gram", "n")
_GLUE = frozenset({"", "-", "'", "\u2019", "/"})  # between the words of one expression, apart from blanks


def is_adjacent(gap: str) -> bool:
    """Whether words with this text between them can be one expression: no punctuation and no line break in it."""
    return gap == " " or ("\n" not in gap and gap.strip() in _GLUE)


def count_block(texts: Iterable[str], longest: int = 1, phi_patterns: tuple[str, ...] = ()) -> pa.Table:
    """Occurrences, and notes with at least one, of words and of runs of up to `longest` adjacent words (GRAMS).

    Words are in lower case; protected words (`phi_patterns`) are not counted and end a run. A note on which a pattern
    takes too long is left out.
    """
    count: Counter[tuple[str, ...]] = Counter()
    n_notes: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        try:
            grams = Counter(_grams(text, longest, phi_patterns))
        except RowError:  # masking will say why
            continue
        count.update(grams)
        n_notes.update(grams.keys())
    keys = sorted(count)
    columns = [[" ".join(key) for key in keys], [len(key) for key in keys]]
    return pa.table([*columns, [count[key] for key in keys], [n_notes[key] for key in keys]], schema=GRAMS)


def _grams(text: str, longest: int, phi_patterns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for run in _runs(text, phi_patterns):
        for n in range(1, longest + 1):
            yield from zip(*(run[start:] for start in range(n)), strict=False)


def _runs(text: str, phi_patterns: tuple[str, ...]) -> Iterator[list[str]]:
    """Maximal runs of adjacent words that are not protected."""
    note = Note(text, word_spans(text))
    protected = note.protected(phi_patterns)[0].tolist()
    run: list[str] = []
    end = 0
    for word, (start, next_end), is_protected in zip(note.words, note.words_W2.tolist(), protected, strict=True):
        if is_protected or not is_adjacent(text[end:start]):
            yield run
            run = []
        if not is_protected:
            run.append(word)
        end = next_end
    yield run


def relevance_block(notes: Iterable[Note], delta: float = 0.05) -> pa.Table:
    """Relevance by word type (TYPES): occurrences, summed relevance, and how often relevance exceeded `delta`.

    Notes have relevance; words of a cut note that the scorer did not see are no occurrences. The sum is of relevance
    relative to its note's largest.
    """
    n_seen: Counter[str] = Counter()
    total: dict[str, float] = {}
    n_important: Counter[str] = Counter()
    for note in notes:
        relevance_QW = note.relevance_QW
        assert relevance_QW is not None  # noqa: S101 (the caller left out the others)
        top_Q1 = np.maximum(np.abs(relevance_QW).max(axis=1, initial=0, keepdims=True), 1e-30)
        sum_W = (np.maximum(relevance_QW, 0) / top_Q1).sum(axis=0)
        over_W = (relevance_QW > delta).sum(axis=0)
        for word, value, over, is_seen in zip(note.words, sum_W, over_W, note.is_seen, strict=True):
            if not is_seen:
                continue
            n_seen[word] += len(relevance_QW)
            total[word] = total.get(word, 0.0) + float(value)
            n_important[word] += int(over)
    keys = sorted(n_seen)
    columns = [keys, [n_seen[k] for k in keys], [total[k] for k in keys], [n_important[k] for k in keys]]
    return pa.table(columns, schema=TYPES)


def merge(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one of the two kinds as one: sums by gram, sorted by gram."""
    whole = pa.concat_tables(tables)
    keys = [name for name in whole.column_names if name in _KEYS]
    values = [name for name in whole.column_names if name not in _KEYS]
    summed = whole.group_by(keys).aggregate([(name, "sum") for name in values])
    renamed = summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names])
    return renamed.select(whole.column_names).cast(whole.schema).sort_by([(key, "ascending") for key in keys])
