"""Targets of many prompts, without gradients: for occlusion, the controls, and faithfulness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from raypipe.attribution.batches import token_batches
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.padded import Rows
from raypipe.attribution.targets import NoteValues
from raypipe.models.prompts import EncodedNote


def values_of(
    decoder: Decoder,
    notes: Sequence[EncodedNote],
    target: str,
    batch_tokens: int,
    chosen: Sequence[np.ndarray] | None = None,
) -> list[NoteValues]:
    """Targets of each note's questions, in order. `chosen` ([Q, 2] per note) fixes which labels are compared."""
    lengths = [len(note.prefix_ids) * max(1, len(note.questions)) for note in notes]
    results: list[NoteValues | None] = [None] * len(notes)
    for batch in token_batches(lengths, batch_tokens):
        members = [notes[i] for i in batch]
        rows = Rows(decoder, members, target)
        fixed = None if chosen is None else torch.tensor(np.concatenate([chosen[i] for i in batch]))
        with torch.no_grad():
            values = rows.values(chosen_Q2=None if fixed is None else fixed.to(decoder.device))
        arrays = [a.cpu().numpy() for a in (values.z_Q, values.chosen_Q2, values.margin_Q, values.score_QC)]
        for index, parts in zip(batch, rows.readout.by_note(len(batch), *arrays), strict=True):
            results[index] = NoteValues(*parts)
    return [result for result in results if result is not None]
