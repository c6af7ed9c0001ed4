"""Counts over the corpus for masking, block by block (masking/counting.py): small tables that add up."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import Code
from raypipe.guard.quiet import quiet
from raypipe.masking.case import Note
from raypipe.masking.counting import count_block, merge, relevance_block


@quiet
def count(table: pa.Table, longest: int, phi_patterns: tuple[str, ...]) -> pa.Table:
    """Notes in, counts of their words and runs of words out."""
    return count_block(table["text"].drop_null().to_pylist(), longest, phi_patterns)


@quiet
def average(table: pa.Table, delta: float, layer: int | None = None) -> pa.Table:
    """Notes with relevance in, relevance by word out."""
    attributed = (
        Note(row["text"], *rows.words_and_relevance(row, layer), is_cut=bool(row["n_cut_tokens"]))
        for row in table.to_pylist()
        if row["error"] is None
    )
    return relevance_block((note for note in attributed if note.relevance_QW is not None), delta)


@quiet
def add_up(table: pa.Table, min_notes: int) -> pa.Table:
    """All rows of some words in, one row per word out; runs of words in fewer than `min_notes` notes are left out."""
    if not table.num_rows:
        return table
    whole = merge([table])
    if "n" not in whole.column_names:
        return whole
    return whole.filter(pc.or_(pc.equal(whole["n"], 1), pc.greater_equal(whole["n_notes"], min_notes)))


@quiet
def leave_out_others(table: pa.Table, note_ids: frozenset[str]) -> pa.Table:
    """Marks all notes but these as NOT_SAMPLED."""
    is_listed = pc.is_in(table["note_id"], pa.array(note_ids, pa.string()))
    error = pc.if_else(is_listed, table["error"], pc.coalesce(table["error"], pa.scalar(Code.NOT_SAMPLED.value)))
    return table.set_column(table.schema.get_field_index("error"), "error", error)
