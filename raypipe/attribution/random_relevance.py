"""Random relevance, the control that every method must beat: uniform in [0, 1), seeded by (seed, note, task).

All tokens of a word get the same number. With one for each token, the largest of a word's would put words of many
tokens first, and the control would know that those are often the terms that matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.scores import values_of
from raypipe.hashing import generator
from raypipe.models.prompts import EncodedNote


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """The scorer runs for its predictions only."""
    values = values_of(request.decoder, notes, request.config.target, request.batch_tokens)
    result = []
    for note, value in zip(notes, values, strict=True):
        n_tokens = len(note.offsets_N2)
        draws = [generator(request.seed, note.note_id, q.task_id).random(n_tokens) for q in note.questions]
        relevance_QN = np.asarray(draws, np.float32).reshape(len(note.questions), n_tokens)
        for start, end in note.tokens_W2:
            relevance_QN[:, start:end] = relevance_QN[:, start : start + 1]
        result.append(NoteAttribution.of_values(value, relevance_QN[:, None]))
    return result


RANDOM = Method(attribute=attribute, reads=lambda _: "none")
