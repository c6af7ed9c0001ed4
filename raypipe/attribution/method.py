"""The vocabulary of attribution: what a method is, and what it says about a note."""

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
from raypipe.words import Floats


@dataclass(frozen=True)
class NoteAttribution:
    """Relevance of one note's tokens for each of its Q questions."""

    predicted_Q: tuple[int, ...]  # the preferred option of each question
    margin_Q: Floats  # its mean log-probability less the runner-up's, nats
    relevance_QKN: Floats  # signed, over the N tokens of the note alone; K kept layers
    # |explained - sum of relevance over all positions| / |explained| at the lowest kept layer: completeness of
    # integrated gradients, conservation of AttnLRP. NaN where a method promises no such sum.
    error_Q: Floats

    @classmethod
    def of_questions(cls, questions: Sequence[OfQuestion], kept: slice) -> NoteAttribution:
        """From each question's numbers, cut to the tokens `kept`."""
        relevance = [question.relevance_KN[:, kept].float().cpu().numpy() for question in questions]
        return cls(
            tuple(question.predicted for question in questions),
            np.asarray([question.margin for question in questions], np.float32),
            np.stack(relevance),
            np.asarray([question.error for question in questions], np.float32),
        )

    @classmethod
    def of_values(cls, values: NoteValues, relevance_QKN: Floats) -> NoteAttribution:
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
class OfQuestion:
    """What a method found for one question, before the note is put together."""

    predicted: int
    margin: float
    relevance_KN: Tensor  # over the padded prefix
    error: float


@dataclass(frozen=True)
class Request:
    """What a method is asked for: everything but the notes."""

    decoder: Decoder
    config: config.Attribution
    layers: tuple[int, ...]  # ascending
    batch_tokens: int  # that the device likes to compute at once, of copies and questions of one note
    seed: int
    idf_V: Floats | None = None  # inverse document frequency of every token, for `tfidf`


# Which layers tell a method something. `scale`: not those whose only effect passes a normalisation, where the sum of
# gradient x activation is rounding noise (hot-path section 1; `decoder.scale_free_layers` finds them). `mixing`: not
# the last, after which no token of the note reaches the answer. `none`: the method reads no layer.
Reads = Literal["scale", "mixing", "none"]

# Keys of config.Attribution that only some methods read; all read the others.
SOME_READ = frozenset({"reduction", "steps", "baseline", "window"})


@dataclass(frozen=True)
class Method:
    """One way to attribute. `attribute` gets a batch that the engine formed and answers in its order."""

    attribute: Callable[[Request, Sequence[EncodedNote]], list[NoteAttribution]]
    reads: Callable[[config.Attribution], Reads]
    settings: frozenset[str] = frozenset()  # of SOME_READ, those that it reads
    needs_cache: bool = False  # has no form without the keys and values of the note
    needs_idf: bool = False  # reads `Request.idf_V`
    needs_rules: bool = False  # edits the gradients of parts that `Family.rules` names
