"""The types of attribution: a method, what it is called with, and what it returns for a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from raypipe.attribution.decoder import Decoder
from raypipe.attribution.targets import NoteValues
from raypipe.models.prompts import EncodedNote
from raypipe.settings import config
from raypipe.words import F32


@dataclass(frozen=True)
class NoteAttribution:
    """Relevance of one note's tokens for each of its Q questions."""

    predicted_Q: tuple[int, ...]  # the preferred option of each question
    margin_Q: F32  # its mean log-probability less the runner-up's, nats
    relevance_QKN: F32  # signed, over the N tokens of the note alone; K stored layers
    # |explained - sum of relevance over all positions| / |explained| at the lowest stored layer: completeness of
    # integrated gradients, conservation of AttnLRP. NaN where a method promises no such sum.
    error_Q: F32

    @classmethod
    def of_questions(cls, questions: Sequence[QuestionAttribution], note_start: int) -> NoteAttribution:
        """From the results of each question; the note's tokens begin at `note_start` of the padded prefix."""
        relevance = [question.relevance_KN[:, note_start:].float().cpu().numpy() for question in questions]
        return cls(
            tuple(question.predicted for question in questions),
            np.asarray([question.margin for question in questions], np.float32),
            np.stack(relevance),
            np.asarray([question.error for question in questions], np.float32),
        )

    @classmethod
    def of_values(cls, values: NoteValues, relevance_QKN: F32) -> NoteAttribution:
        """From a method that has no gradients."""
        no_sum_Q = np.full(len(values.margin_Q), np.nan, np.float32)
        return cls(tuple(values.chosen_Q2[:, 0].tolist()), values.margin_Q, relevance_QKN, no_sum_Q)

    @classmethod
    def joined(cls, parts: Sequence[NoteAttribution]) -> NoteAttribution:
        """The questions of one note, from one result per question."""
        return cls(
            tuple(label for part in parts for label in part.predicted_Q),
            np.concatenate([part.margin_Q for part in parts]),
            np.concatenate([part.relevance_QKN for part in parts]),
            np.concatenate([part.error_Q for part in parts]),
        )


@dataclass(frozen=True)
class QuestionAttribution:
    """The result for one question, before those of a note are joined."""

    predicted: int
    margin: float
    relevance_KN: Tensor  # over the padded prefix
    error: float


@dataclass(frozen=True)
class Request:
    """The arguments of a method, except for the notes."""

    decoder: Decoder
    config: config.Attribution
    layers: tuple[int, ...]  # ascending
    batch_tokens: int  # tokens computed at once, of copies and questions of one note
    seed: int
    idf_V: F32 | None = None  # inverse document frequency of every token, for `tfidf`


# Which layers are valid for a method (docs/method.md, section 4.3). `scale`: not those that act through a normalisation
# alone, where the sum of gradient x activation is rounding noise (`Decoder.scale_free_layers`). `mixing`: not the last,
# after which no token of the note reaches the answer. `none`: the method has no layers.
Reads = Literal["scale", "mixing", "none"]

# Keys of config.Attribution that only some methods read; all read the others.
SOME_READ = frozenset({"reduction", "steps", "baseline", "window"})


@dataclass(frozen=True)
class Method:
    """One way to attribute. `attribute` gets a batch that the engine formed and answers in its order."""

    attribute: Callable[[Request, Sequence[EncodedNote]], list[NoteAttribution]]
    reads: Callable[[config.Attribution], Reads]
    settings: frozenset[str] = frozenset()  # of SOME_READ, those that it reads
    copies_note: bool = False  # computes each question in a row of its own, with the note before it
    needs_cache: bool = False  # works on the cached keys and values of the note only
    needs_idf: bool = False  # reads `Request.idf_V`
    needs_rules: bool = False  # edits the gradients of parts that `Family.rules` names
