"""How much arithmetic attribution is: FLOPs of one note by method, from lengths alone.

The counts follow the passes that the methods make (gradients.py, kv_direct.py, integrated_gradients.py, occlusion.py).
What they leave out in the last block, and the label columns of the head, are not subtracted: less than a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from raypipe.attribution.targets import branches_of
from raypipe.models.prompts import EncodedNote
from raypipe.models.shape import Shape
from raypipe.settings.config import Attribution


@dataclass(frozen=True)
class NoteSize:
    """What of a note the passes depend on."""

    prefix: int  # tokens of head and note
    branches: tuple[int, ...]  # tokens of each branch: a question, and what of its options is forced
    questions: int
    reads: int  # predictions over the whole vocabulary; 0 if all options are single tokens
    words: int

    @classmethod
    def of(cls, note: EncodedNote) -> NoteSize:
        """Of an encoded note with its questions."""
        options = [question.option_ids for question in note.questions]
        is_long = any(len(ids) > 1 for of_question in options for ids in of_question)
        reads = sum(len({ids[:k] for ids in of_question for k in range(len(ids))}) for of_question in options)
        branches = tuple(len(ids) for question in note.questions for ids in branches_of(question))
        return cls(len(note.prefix_ids), branches, len(note.questions), reads * is_long, len(note.tokens_W2))

    def apart(self) -> list[NoteSize]:
        """The same questions, each asked of a note of its own."""
        per_question = max(1, len(self.branches) // max(1, self.questions))
        parts = [self.branches[i : i + per_question] for i in range(0, len(self.branches), per_question)]
        return [NoteSize(self.prefix, part, 1, self.reads // max(1, len(parts)), self.words) for part in parts]


@dataclass(frozen=True)
class Passes:
    """A method's settings as its passes depend on them."""

    shape: Shape
    attribution: Attribution
    above: float  # share of the blocks above the lowest layer that is read
    layers: int  # how many layers are read


def flops(shape: Shape, attribution: Attribution, layers: tuple[int, ...], size: NoteSize) -> float | None:
    """FLOPs of one note. `layers`: those that are stored. None where the number of passes is not this project's."""
    cost = COSTS.get(attribution.method)
    if cost is None:
        return None
    return cost(Passes(shape, attribution, (shape.depth - min(layers)) / shape.depth, len(layers)), size)


def _rows(size: NoteSize) -> list[tuple[int, int]]:
    """Tokens and pairs of each branch as a row of its own, the note before it."""
    return [(size.prefix + branch, (size.prefix + branch) ** 2) for branch in size.branches]


def _branches(passes: Passes, size: NoteSize) -> float:
    """All branches on the cached note, forward and backward."""
    tokens = sum(size.branches)
    pairs = sum(branch * (size.prefix + branch) for branch in size.branches)
    shape = passes.shape
    return shape.forward(tokens, pairs) + shape.backward(tokens, pairs, passes.above) + 2 * shape.head(size.reads)


def _gradients(passes: Passes, size: NoteSize) -> float:
    """One row if there is one branch. Else the note once, the branches, and the way back through the note for each."""
    shape = passes.shape
    if len(size.branches) == 1:
        ((tokens, pairs),) = _rows(size)
        return shape.forward(tokens, pairs) + shape.backward(tokens, pairs, passes.above) + 2 * shape.head(size.reads)
    note = size.prefix, size.prefix**2
    return shape.forward(*note) + _branches(passes, size) + size.questions * shape.backward(*note, passes.above)


def _direct(passes: Passes, size: NoteSize) -> float:
    """The note once, without a way back through it."""
    return passes.shape.forward(size.prefix, size.prefix**2) + _branches(passes, size)


def _values(passes: Passes, size: NoteSize) -> float:
    """The answers alone, each question in a row of its own."""
    return sum(passes.shape.forward(*row) for row in _rows(size)) + passes.shape.head(size.reads)


def _integrated(passes: Passes, size: NoteSize) -> float:
    """Both ends of the path, then each step of each layer through the blocks above it."""
    shape = passes.shape
    step = sum(shape.forward(*row, passes.above) + shape.backward(*row, passes.above) for row in _rows(size))
    step += 2 * shape.head(size.reads)
    return 2 * _values(passes, size) + passes.attribution.steps * passes.layers * step


def _occlusion(passes: Passes, size: NoteSize) -> float:
    """The whole note, and the note without each window."""
    return (1 + math.ceil(size.words / passes.attribution.window)) * _values(passes, size)


def _attention(passes: Passes, size: NoteSize) -> float:
    return 2 * _values(passes, size)


COSTS: dict[str, Callable[[Passes, NoteSize], float]] = {
    "grad_x_activation": _gradients,
    "attnlrp": _gradients,
    "kv_direct": _direct,
    "kv_direct_value": _direct,
    "integrated_gradients": _integrated,
    "occlusion": _occlusion,
    "attention_mean": _attention,
    "tfidf": _values,
    "random": _values,
}
