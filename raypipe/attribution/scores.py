"""Targets of many prompts, without gradients: for occlusion, the controls, and faithfulness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from raypipe.attribution.batches import in_batches
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

    def of_batch(members: list[int]) -> list[NoteValues]:
        rows = Rows(decoder, [notes[i] for i in members], target)
        fixed = None if chosen is None else torch.tensor(np.concatenate([chosen[i] for i in members]))
        with torch.no_grad():
            values = rows.values(chosen_Q2=None if fixed is None else fixed.to(decoder.device))
        arrays = [a.cpu().numpy() for a in (values.z_Q, values.chosen_Q2, values.margin_Q, values.score_QC)]
        return [NoteValues(*parts) for parts in rows.readout.by_note(len(members), *arrays)]

    lengths = [len(note.prefix_ids) * max(1, len(note.questions)) for note in notes]
    return in_batches(range(len(notes)), lengths, batch_tokens, of_batch)
