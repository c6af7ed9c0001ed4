"""Masking plans of all arms for one note: the second map stage. No torch; a CPU task keeps up with many GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import InputError, Problem, RowError
from raypipe.masking import Masker, Statistics
from raypipe.settings import config
from raypipe.stream.stages.quiet import quiet
from raypipe.words import F32, I32, word_spans


@quiet
class Mask:
    """Notes with (or without) relevance in, the same notes with plans out (rows.MASKED)."""

    def __init__(
        self,
        arms: Mapping[str, config.Masking],
        seed: int,
        statistics: str | None = None,
        layer: int | None = None,
    ) -> None:
        known = None if statistics is None else Statistics.load(Path(statistics))
        self.masker = Masker(arms, seed, known)
        self.layer = layer

    def __call__(self, table: pa.Table) -> pa.Table:
        return rows.table([self._row(note) for note in table.to_pylist()], rows.MASKED)

    def _row(self, note: dict[str, Any]) -> dict[str, Any]:
        if note["error"] is not None:
            return note
        tags = note.get("tags")
        words, relevance = words_and_relevance(note, self.layer)
        try:
            plans = self.masker.plans(
                note["note_id"],
                note["text"],
                words,
                note.get("task_id") or [],
                relevance,
                tags=None if tags is None else tags.split(),
                is_cut=bool(note.get("n_cut_tokens")),
            )
        except RowError as error:
            return note | {"text": None, "error": error.code.value}  # its relevance may serve arms that come later
        return note | {"plans": plans}


@quiet
def unmasked(table: pa.Table) -> pa.Table:
    """The columns rows.ATTRIBUTED of rows.MASKED: what masking found wrong with a note is not said of its relevance."""
    has_relevance = pc.is_valid(table["relevance"])
    error = pc.if_else(has_relevance, pa.scalar(None, pa.string()), table["error"])
    columns = [error if name == "error" else table[name] for name in rows.ATTRIBUTED.names]
    return pa.table(columns, schema=rows.ATTRIBUTED)


def words_and_relevance(note: dict[str, Any], layer: int | None = None) -> tuple[I32, F32 | None]:
    """Words [W, 2] of a note and their relevance [Q, W] at a layer (None: the lowest kept), if it has any."""
    if note.get("relevance") is None:
        return word_spans(note["text"]), None
    words = np.stack([note["word_start"], note["word_end"]], axis=1).astype(np.int32)
    shape = (len(note["task_id"]), len(note["layers"]), len(words))
    return words, np.asarray(note["relevance"], np.float32).reshape(shape)[:, _place_of(layer, note["layers"])]


def _place_of(layer: int | None, kept: list[int]) -> int:
    if layer is not None and layer not in kept:
        raise InputError([Problem("attribution.layer", f"is {layer}, but relevance was kept at {kept}")])
    return 0 if layer is None else kept.index(layer)
