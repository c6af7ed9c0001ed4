"""Hidden states of all layers for notes and questions, pooled: the inputs of probes (docs/method.md, section 10).

One forward pass gives every layer and every question of a note: questions are branches of the note's token tree. The
prompt is that of fine-tuning and scoring, up to where the answer begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raypipe.attribution.batches import token_batches
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, question_groups
from raypipe.models.tree import TokenTree
from raypipe.words import F32


@dataclass(frozen=True)
class NoteStates:
    """Pooled states of the chosen layers, in their order."""

    mean_KD: F32  # over the note's tokens, which see no question
    last_QKD: F32  # of the last token before each answer


@dataclass(frozen=True)
class _Row:
    note: int  # index into the batch of notes
    tree: TokenTree
    last: list[int]  # where each question's last token stands


def layers_at(fractions: Sequence[float] | str, depth: int) -> list[int]:
    """Layers 0..depth at these fractions of the depth; `all`: every one."""
    if isinstance(fractions, str):
        return list(range(depth + 1))
    return sorted({round(fraction * depth) for fraction in fractions})


@torch.no_grad()
def note_states(
    loaded: Loaded, notes: Sequence[EncodedNote], layers: Sequence[int], batch_tokens: int
) -> list[NoteStates]:
    """Pooled states of each note, float32, in the order of `notes`."""
    rows = [row for index, note in enumerate(notes) for row in _rows(index, note)]
    means: list[F32 | None] = [None] * len(notes)
    lasts: list[dict[int, F32]] = [{} for _ in notes]  # by number of the row
    for batch in token_batches([len(row.tree.ids) for row in rows], batch_tokens):
        trees = tree.collate([rows[i].tree.arrays() for i in batch], loaded.tokenizer.pad_token_id, loaded.device)
        every = tree.layer_states(loaded.model, trees)
        for b, i in enumerate(batch):
            row, note = rows[i], notes[rows[i].note]
            text = slice(note.note_start, len(note.prefix_ids))
            lasts[row.note][i] = np.stack([_array(every[k][b, row.last]) for k in layers], axis=1)
            if means[row.note] is None:
                means[row.note] = np.stack([_array(every[k][b, text].float().mean(0)) for k in layers])
    return [
        NoteStates(mean, np.concatenate([of_note[i] for i in sorted(of_note)]))
        for mean, of_note in zip(means, lasts, strict=True)
        if mean is not None
    ]


def _rows(index: int, note: EncodedNote) -> Iterator[_Row]:
    for _, questions in question_groups(note.questions):
        row = _Row(index, TokenTree.of_trunk(note.prefix_ids), [])
        for question in questions:
            row.last.append(row.tree.add_branch(question.suffix_ids) + len(question.suffix_ids) - 1)
        yield row


def _array(states: torch.Tensor) -> F32:
    return np.asarray(states.float().cpu().numpy(), np.float32)
