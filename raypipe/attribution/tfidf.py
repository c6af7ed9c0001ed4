"""TF-IDF relevance: words that are frequent in the note and rare elsewhere. A control that knows nothing of the task.

R_i = tf * idf of token i (Salton & Buckley 1988): its count in the note times log((1 + n) / (1 + df)), where df of the
corpus's n notes hold it. Whoever builds the engine counts the corpus (`idf_of_notes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.scores import values_of
from raypipe.models.prompts import EncodedNote
from raypipe.words import F32


def idf_of_notes(notes: Iterable[Sequence[int]], vocabulary: int) -> F32:
    """Inverse document frequency [V] of every token, for the engine's `idf_V`, from the tokens of each note."""
    frequency_V = np.zeros(vocabulary, np.float64)
    n_notes = 0
    for ids in notes:
        frequency_V[list(set(ids))] += 1
        n_notes += 1
    return np.log((1 + n_notes) / (1 + frequency_V)).astype(np.float32)


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """The same for all questions; the scorer runs for its predictions only."""
    idf_V = request.idf_V
    if idf_V is None:  # the engine refuses this earlier
        raise ValueError("no document frequencies")
    values = values_of(request.decoder, notes, request.config.target, request.batch_tokens)
    result = []
    for note, value in zip(notes, values, strict=True):
        ids = note.prefix_ids[note.note_start :]
        count = Counter(ids)
        relevance_N = np.asarray([count[token] for token in ids], np.float32) * idf_V[list(ids)]
        relevance_QKN = np.tile(relevance_N.astype(np.float32), (len(note.questions), 1, 1))
        result.append(NoteAttribution.of_values(value, relevance_QKN))
    return result


TFIDF = Method(attribute=attribute, reads=lambda _: "none", needs_idf=True)
