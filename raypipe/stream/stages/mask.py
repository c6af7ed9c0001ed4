"""Masking plans of all arms for each note. Needs no torch: one CPU keeps up with many GPUs that attribute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import RowError
from raypipe.guard.quiet import quiet
from raypipe.masking import Masker, Statistics
from raypipe.settings import config


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
        corpus_statistics = None if statistics is None else Statistics.load(Path(statistics))
        self.masker = Masker(arms, seed, corpus_statistics)
        self.layer = layer

    def __call__(self, table: pa.Table) -> pa.Table:
        return rows.table([self._row(note) for note in rows.records(table)], rows.MASKED)

    def _row(self, note: dict[str, Any]) -> dict[str, Any]:
        if note["error"] is not None:
            return note
        tags = note.get("tags")
        words, relevance = rows.words_and_relevance(note, self.layer)
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
            return note | {
                "text": None,
                "error": error.code.value,
            }  # its relevance stays, for arms that are added later
        return note | {"plans": plans}


@quiet
def unmasked(table: pa.Table) -> pa.Table:
    """rows.MASKED in, rows.ATTRIBUTED out. An error of masking is dropped: the relevance of that note is good."""
    has_relevance = pc.is_valid(table["relevance"])
    error = pc.if_else(has_relevance, pa.scalar(None, pa.string()), table["error"])
    columns = [error if name == "error" else table[name] for name in rows.ATTRIBUTED.names]
    return pa.table(columns, schema=rows.ATTRIBUTED)
