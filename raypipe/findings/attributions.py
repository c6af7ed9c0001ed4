"""Relevance for readers outside of raypipe: numpy arrays per note, or one tidy table.

    raypipe export --config RUN --what attributions --out FILE.parquet

The steps keep relevance compact, as [Q, K, W] of a note in one cell. The tidy table has a row per note, task, layer and
word (rows.ATTRIBUTIONS); it is many times as large, and written in parts, so that memory holds a few notes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.records import new_file
from raypipe.runs import integrity
from raypipe.words import F32, I32

COLUMNS = ["note_id", "task_id", "predicted", "margin", "word_start", "word_end", "layers", "relevance"]
AT_ONCE = 32  # notes that are read at once
ROWS_PER_GROUP = 1 << 18  # of the tidy table, about: one row group in memory


@dataclass(frozen=True)
class Attribution:
    """Relevance of one note's words. Q tasks whose question was put to it, K layers stored, W words."""

    note_id: str
    task_ids: tuple[str, ...]  # [Q]
    predicted: tuple[str, ...]  # [Q] the option that the scorer prefers
    margin_Q: F32  # its mean log-probability less the runner-up's, nats
    layers: tuple[int, ...]  # [K] 0 = embeddings, k = output of decoder block k
    words_W2: I32  # start and end of each word, in characters of the NFC-normalised note
    relevance_QKW: F32  # 0 for words that the scorer could not see
    text: str | None = None  # of the note, where it was asked for


def read(path: Path | str, with_text: bool = False) -> Iterator[Attribution]:
    """All notes with relevance, from the folder of a run or of its step `attribute` or `mask`; see there for errors."""
    return _notes(step_of(Path(path), needs_text=with_text), with_text)


def step_of(path: Path, needs_text: bool = False) -> Path:
    """The folder of a finished step with relevance: the path itself, or the run's.

    Raises `InputError` if there is none, or if files of it are damaged.
    """
    steps = [path, *([] if needs_text else [path / "attribute"]), path / "mask"]
    finished = [step for step in steps if (step / integrity.MANIFEST).exists() and (step / "data").is_dir()]
    if not finished:
        what = "`raypipe mask`" if needs_text else "`raypipe attribute` or `raypipe mask`"
        raise InputError([Problem(str(path), f"holds no finished relevance; run {what} first")])
    integrity.demand_whole(finished[:1])
    columns = {*COLUMNS, *(["text"] if needs_text else [])}
    with integrity.blamed(finished[:1]):
        names = rows.dataset(finished[0] / "data").schema.names
    if missing := columns - set(names):
        raise InputError([Problem(str(finished[0]), f"has no {', '.join(sorted(missing))}; name `mask` or the run")])
    return finished[0]


def batches(step: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a finished step, a few notes at a time; if reading fails, the damaged file is named."""
    with integrity.blamed([step]):
        yield from rows.dataset(step / "data").to_batches(
            columns=columns, batch_size=AT_ONCE, batch_readahead=1, fragment_readahead=1
        )


def export(path: Path, out: Path, with_text: bool = False) -> tuple[int, int]:
    """Write the tidy table; returns how many notes and rows it has. `with_text`: a column with each word's text.

    Raises `InputError` if there is no relevance, or a file lies at `out`.
    """
    notes = read(path, with_text)
    schema = rows.ATTRIBUTIONS if with_text else rows.ATTRIBUTIONS.remove(len(rows.ATTRIBUTIONS) - 1)
    n_notes = n_rows = 0
    with new_file(out) as fresh, pq.ParquetWriter(fresh, schema, **rows.WRITE) as writer:
        for n_in_group, group in _groups(notes, schema):
            writer.write_table(group)
            n_notes, n_rows = n_notes + n_in_group, n_rows + len(group)
        if not n_notes:
            raise InputError([Problem(str(path), "no note has relevance: no arm needs it; run `raypipe attribute`")])
    return n_notes, n_rows


def _groups(notes: Iterator[Attribution], schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """The tidy rows in parts of about a row group, each with its number of notes."""
    tables: list[pa.Table] = []
    for note in notes:
        tables.append(_tidy(note, schema))
        if sum(map(len, tables)) >= ROWS_PER_GROUP:
            yield len(tables), pa.concat_tables(tables)
            tables = []
    if tables:
        yield len(tables), pa.concat_tables(tables)


def _tidy(note: Attribution, schema: pa.Schema) -> pa.Table:
    n_tasks, n_layers, n_words = note.relevance_QKW.shape
    q, k, w = (index.ravel() for index in np.indices((n_tasks, n_layers, n_words), np.int32))
    columns = {
        "note_id": pa.repeat(note.note_id, len(q)),
        "task_id": pa.array(note.task_ids, pa.string()).take(pa.array(q)),
        "layer": np.asarray(note.layers, np.int16)[k],
        "word": w,
        "start": note.words_W2[w, 0],
        "end": note.words_W2[w, 1],
        "relevance": note.relevance_QKW.ravel(),
    }
    if note.text is not None:
        words = [note.text[start:end] for start, end in note.words_W2.tolist()]
        columns["text"] = pa.array(words, pa.string()).take(pa.array(w))
    return pa.table(columns, schema=schema)


def _notes(step: Path, with_text: bool) -> Iterator[Attribution]:
    for batch in batches(step, [*COLUMNS, *(["text"] if with_text else [])]):
        attributed = batch.filter(batch["relevance"].is_valid())
        for i in range(len(attributed)):
            yield _note({name: attributed[name][i] for name in attributed.schema.names})


def _note(cells: dict[str, Any]) -> Attribution:
    """Of a row's Arrow scalars: lists of numbers become arrays without a Python object for each number."""
    start, end, margin, relevance = (
        cells[name].values.to_numpy(zero_copy_only=False) for name in ("word_start", "word_end", "margin", "relevance")
    )
    task_ids, layers = tuple(cells["task_id"].as_py()), tuple(cells["layers"].as_py())
    return Attribution(
        note_id=cells["note_id"].as_py(),
        task_ids=task_ids,
        predicted=tuple(cells["predicted"].as_py()),
        margin_Q=margin,
        layers=layers,
        words_W2=np.stack([start, end], axis=1).astype(np.int32),
        relevance_QKW=relevance.astype(np.float32).reshape(len(task_ids), len(layers), len(start)),
        text=cells["text"].as_py() if "text" in cells else None,
    )
