"""Hidden states of all layers for notes and questions, pooled: the inputs of probes (docs/method.md, section 10).

One forward pass gives every layer and every question of a note: questions are branches of the note's token tree. The
prompt is that of fine-tuning and scoring, up to where the answer begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch

from raypipe.attribution.batches import in_batches
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
    tree: TokenTree
    text: slice  # the note's tokens
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

    def of_batch(members: list[_Row]) -> list[NoteStates]:
        trees = tree.collate([row.tree.arrays() for row in members], loaded.tokenizer.pad_token_id, loaded.device)
        every = tree.layer_states(loaded.model, trees)
        return [
            NoteStates(
                np.stack([_array(every[k][b, row.text].float().mean(0)) for k in layers]),
                np.stack([_array(every[k][b, row.last]) for k in layers], axis=1),
            )
            for b, row in enumerate(members)
        ]

    rows_of = [list(_rows(note)) for note in notes]
    rows = list(chain.from_iterable(rows_of))
    parts = iter(in_batches(rows, [len(row.tree.ids) for row in rows], batch_tokens, of_batch))
    states = [list(islice(parts, len(of_note))) for of_note in rows_of]
    return [NoteStates(of_note[0].mean_KD, np.concatenate([s.last_QKD for s in of_note])) for of_note in states]


def _rows(note: EncodedNote) -> Iterator[_Row]:
    for _, questions in question_groups(note.questions):
        row = _Row(TokenTree.of_trunk(note.prefix_ids), slice(note.note_start, len(note.prefix_ids)), [])
        for question in questions:
            row.last.append(row.tree.add_branch(question.suffix_ids) + len(question.suffix_ids) - 1)
        yield row


def _array(states: torch.Tensor) -> F32:
    return np.asarray(states.float().cpu().numpy(), np.float32)
