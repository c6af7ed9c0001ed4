"""Plain text as training rows: each note cut into pieces of the context's length, loss on every token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.models import loading
from raypipe.settings import config
from raypipe.training.examples import STORED, receipt


@quiet
class Cut:
    """Notes in; training rows of the arm `text` out, and a receipt for each note.

    No row mixes two notes: length buckets leave little padding.
    """

    def __init__(self, tokenizer: config.Model, pretrain: config.Pretrain) -> None:
        self.tokenizer = loading.load_tokenizer(tokenizer)
        self.pretrain = pretrain
        self.weight = np.ones(len(self.tokenizer))
        for word, weight in pretrain.emphasis.items():
            self.weight[self.tokenizer(word, add_special_tokens=False)["input_ids"]] = weight

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = [note for note in table.to_pylist() if note["error"] is None]
        out = [row for note in notes for row in self._rows(note["note_id"], note["text"])]
        out += [receipt(note_id) for note_id in table["note_id"].to_pylist()]
        return rows.table(out, STORED)

    def _rows(self, note_id: str, text: str) -> Iterator[dict[str, Any]]:
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids = [*([] if begin is None else [begin]), *encoded, *([] if end is None else [end])]
        starts = range(0, len(ids) - 1, self.pretrain.context)
        for part, start in enumerate(starts[: self.pretrain.max_pieces]):
            piece = ids[start : start + self.pretrain.context]
            weight = self.weight[piece]
            weight[0] = 0  # nothing predicts the first token of a row
            row = {"input_ids": piece, "loss_weight": weight, "branch": np.zeros(len(piece), np.int16)}
            yield {"arm": "text", "key": f"{note_id}\t{part:06d}", "draw": 0, **row}
