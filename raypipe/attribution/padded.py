"""A batch in which every branch of every question has a row of its own: note and question together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import NoteAttribution
from raypipe.attribution.targets import Readout, Values
from raypipe.models.prompts import EncodedNote


class Rows:
    """Rows [R, T], padded on the right, and the way from rows to questions to notes."""

    def __init__(self, decoder: Decoder, notes: Sequence[EncodedNote], target: str) -> None:
        self.decoder, self.notes = decoder, notes
        self.readout = Readout(notes, target)
        branches = self.readout.branches
        prefixes = [notes[branch.note].prefix_ids for branch in branches]
        self.ids_RT = decoder.pad([prefix + b.ids for prefix, b in zip(prefixes, branches, strict=True)])
        self.rows_P = self.readout.rows_P
        self.columns_P = [c + len(prefixes[r]) for r, c in zip(self.rows_P, self.readout.columns_P, strict=True)]
        index_T = torch.arange(self.ids_RT.shape[1], device=decoder.device)
        start_R1, end_R1 = (
            torch.tensor(edge, device=decoder.device)[:, None]
            for edge in ([notes[b.note].note_start for b in branches], [len(prefix) for prefix in prefixes])
        )
        self.is_note_RT = (index_T >= start_R1) & (index_T < end_R1)

    def values(self, embedded_RTD: Tensor | None = None, chosen_Q2: Tensor | None = None) -> Values:
        """Targets; from other embeddings than those of the tokens, if given."""
        inputs = {"input_ids": self.ids_RT} if embedded_RTD is None else {"inputs_embeds": embedded_RTD}
        states_PD = self.decoder.states(self.rows_P, self.columns_P, **inputs)
        return self.readout.values(self.decoder, states_PD, chosen_Q2)

    def baseline(self, embedded_RTD: Tensor, kind: str) -> Tensor:
        """Embeddings of a note without content: zero or the mean of all; instruction and question stay."""
        empty = torch.zeros_like(embedded_RTD) if kind == "zero" else self.decoder.mean_embedding
        return torch.where(self.is_note_RT[:, :, None], empty, embedded_RTD)

    def sum_of_copies(self, n_copies: int, chosen_Q2: Tensor) -> Tensor:
        """The sum of all targets over copies of the rows, whose hidden states come from `hooks.resume`."""
        n_rows = len(self.ids_RT)
        rows = [copy * n_rows + row for copy in range(n_copies) for row in self.rows_P]
        ids_XT = self.ids_RT.repeat(n_copies, 1)
        states = self.decoder.states(rows, self.columns_P * n_copies, input_ids=ids_XT).chunk(n_copies)
        return torch.stack([self.readout.values(self.decoder, s, chosen_Q2).z_Q.sum() for s in states]).sum()

    def one_of_questions(self, rows_RX: Tensor) -> Tensor:
        """[R, ...] -> [Q, ...]: the first branch of each question; on the note's tokens all branches are the same."""
        return rows_RX if self.readout.is_one_to_one else rows_RX[self.readout.first_rows]

    def results(self, values: Values, relevance_QKT: Tensor, error_Q: Tensor) -> list[NoteAttribution]:
        """Split into notes, cut to the note's own tokens."""
        arrays = (values.chosen_Q2[:, 0], values.margin_Q, relevance_QKT, error_Q)
        parts = self.readout.by_note(len(self.notes), *(a.detach().float().cpu().numpy() for a in arrays))
        return [
            NoteAttribution(
                tuple(int(best) for best in best_Q),
                margin_Q,
                note_QKT[:, :, note.note_start : len(note.prefix_ids)],
                note_error_Q,
            )
            for note, (best_Q, margin_Q, note_QKT, note_error_Q) in zip(self.notes, parts, strict=True)
        ]
