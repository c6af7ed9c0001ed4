"""Plain text as training rows: each note cut into pieces of the context's length, loss on every token."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raypipe import config, rows
from raypipe.models import loading
from raypipe.training.examples import STORED


class Cut:
    """Notes in, training rows of the arm `text` out. No row mixes two notes: length buckets leave little padding."""

    def __init__(self, model: config.Model, context: int) -> None:
        self.tokenizer = loading.load_tokenizer(model)
        self.context = context

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = [(i, t) for i, t, e in zip(*(table[c].to_pylist() for c in ("note_id", "text", "error")), strict=True) if not e]
        out: list[dict[str, Any]] = []
        encoded = self.tokenizer([text for _, text in notes], add_special_tokens=False, split_special_tokens=True)
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        for (note_id, _), ids in zip(notes, encoded["input_ids"], strict=True) if notes else ():
            whole = [*([] if begin is None else [begin]), *ids, *([] if end is None else [end])]
            for part, start in enumerate(range(0, len(whole) - 1, self.context)):
                piece = whole[start : start + self.context]
                # nothing predicts the first token of a row
                row = {"input_ids": piece, "loss_weight": [0.0] + [1.0] * (len(piece) - 1), "branch": [0] * len(piece)}
                out.append({"arm": "text", "key": f"{note_id}\t{part:06d}", "draw": 0, **row})
        return rows.table(out, STORED)
