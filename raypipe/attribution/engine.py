"""`AttributionEngine`: notes in, relevance out, in the same order.

It forms the batches and handles failures: a batch that does not fit the memory is halved, down to one note; a note that
fails becomes an `errors.Code`; and what bfloat16 is too coarse for is computed again in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from raypipe.attribution import gradients
from raypipe.attribution.batches import token_batches
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.layers import masking_layer, ranges
from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.registry import lacks_rules, method_of
from raypipe.errors import Code, InputError, Problem
from raypipe.models.loading import Loaded
from raypipe.models.precision import BORDERLINE, float32_twin
from raypipe.models.prompts import EncodedNote
from raypipe.notes.cleaning import hashed
from raypipe.settings import config
from raypipe.words import F32

logger = logging.getLogger(__name__)

# On a CPU padding costs more than a batch saves, so only short notes share one (measured: 8 notes of 90 to 508 tokens
# take a tenth longer in batches of 1024 tokens than one by one). Copies and questions of one note need no padding.
CPU_BATCH_TOKENS, CPU_COPIES_TOKENS = 256, 1024


class AttributionEngine:
    """One scorer, one method, its layers. Freezes the scorer's parameters.

    `layers`: the stored layers, ascending; `relevance_QKN` is in this order.
    Raises `InputError` if method or layer do not fit the scorer; the message names what would.
    """

    def __init__(self, scorer: Loaded, config: config.Attribution, seed: int = 0, idf_V: F32 | None = None) -> None:
        self.config = config
        self.method = method_of(config)
        try:
            self.decoder = Decoder(scorer)
        except ValueError as error:
            raise InputError([Problem("model.path", str(error))]) from None
        if self.method.needs_cache and not self.decoder.can_cache:
            what = f"{config.method} needs a model that runs on cached keys and values; use grad_x_activation"
            raise InputError([Problem("attribution.method", what)])
        if (reason := lacks_rules(config, scorer.model.config.model_type)) is not None:
            raise InputError([Problem("attribution.method", reason)])
        if self.method.needs_idf and idf_V is None:
            what = f"{config.method} needs document frequencies of the corpus's tokens (tfidf.idf_of_notes)"
            raise InputError([Problem("attribution.method", what)])
        self.layers = resolve_layers(config, self.method, self.decoder)
        self.batch_tokens = budget = config.batch_tokens
        if scorer.device.type == "cpu":
            self.batch_tokens, budget = min(budget, CPU_BATCH_TOKENS), min(budget, CPU_COPIES_TOKENS)
        self.request = Request(self.decoder, config, self.layers, budget, seed, idf_V)

    def attribute(self, notes: Sequence[EncodedNote]) -> list[NoteAttribution | Code]:
        """Relevance of each note, or why there is none. Results do not depend on how notes are grouped."""
        results: list[NoteAttribution | Code] = [self._without_questions(note) for note in notes]
        for batch in self._batches(notes):
            for index, result in zip(batch, self._attempt([notes[i] for i in batch]), strict=True):
                results[index] = result
        return [self._settle(note, result) for note, result in zip(notes, results, strict=True)]

    def _without_questions(self, note: EncodedNote) -> NoteAttribution:
        none = np.zeros(0, np.float32)
        return NoteAttribution((), none, np.zeros((0, len(self.layers), len(note.offsets_N2)), np.float32), none)

    def _batches(self, notes: Sequence[EncodedNote]) -> list[list[int]]:
        # notes that are encoded once for several questions do not share a batch with notes that have one row each
        may_share = not self.method.copies_note
        is_shared = [may_share and gradients.is_shared(self.decoder, [note]) for note in notes]
        batches = []
        for kind in (False, True):
            members = [i for i, shared in enumerate(is_shared) if shared == kind and notes[i].questions]
            lengths = [cost_tokens(notes[i], kind) for i in members]
            batches += [[members[j] for j in batch] for batch in token_batches(lengths, self.batch_tokens)]
        return batches

    def _attempt(self, notes: Sequence[EncodedNote]) -> Sequence[NoteAttribution | Code]:
        """A batch, or its halves if it fails; a single note that fails gets its code."""
        try:
            return self.method.attribute(self.request, notes)
        except (RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, torch.AcceleratorError):
                raise  # the device is lost: every later call would fail too, so the actor must go
            code = Code.OOM if is_out_of_memory(error) else Code.MODEL
            kind = type(error).__name__  # never the message: it could quote the note
        if self.decoder.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(notes) == 1:
            logger.warning("note %s: %s (%s)", hashed(notes[0].note_id), code.value, kind)
            return [code]
        half = len(notes) // 2
        return [*self._attempt(notes[:half]), *self._attempt(notes[half:])]

    def _settle(self, note: EncodedNote, result: NoteAttribution | Code) -> NoteAttribution | Code:
        """Compute again in float32 what the scorer's own precision is too coarse for."""
        if isinstance(result, Code):
            return result
        finite = is_finite(result)
        if self.decoder.dtype == torch.float32:
            return result if finite else Code.NONFINITE
        doubtful = [q for q, margin in enumerate(result.margin_Q) if not finite or margin < BORDERLINE]
        if not doubtful:
            return result
        questions = tuple(note.questions[q] for q in doubtful)
        twin = self._float32
        again = twin.attribute([replace(note, questions=questions)])[0] if twin else Code.OOM
        if isinstance(again, Code):
            return Code.NONFINITE if not finite else result
        return merged(result, again, doubtful)

    @cached_property
    def _float32(self) -> AttributionEngine | None:
        """The same engine on a float32 copy of the scorer, made when first needed; None if the memory is too small."""
        twin = float32_twin(self.decoder.loaded)
        if twin is None:
            return None
        try:
            return AttributionEngine(twin, self.config, self.request.seed, self.request.idf_V)
        except (RuntimeError, InputError) as error:  # the copy fits, but not what the engine tries on it
            if isinstance(error, torch.AcceleratorError):
                raise
            logger.warning(
                "the float32 copy of the model cannot be used: borderline labels stay as %s", self.decoder.dtype
            )
            return None


def resolve_layers(config: config.Attribution, method: Method, decoder: Decoder) -> tuple[int, ...]:
    """Stored layers, ascending: all valid ones, one number, or a fraction of the depth; 0 for a method without layers.

    Raises `InputError` where the method would return noise or zeros, naming the valid range.
    """
    reads = method.reads(config)
    if reads == "none":
        return (0,)
    useless = decoder.scale_free_layers if reads == "scale" else {decoder.depth}
    valid = [layer for layer in range(decoder.depth + 1) if layer not in useless]
    if config.layer == "all":
        return tuple(valid)
    layer = masking_layer(config, decoder.depth)
    if layer in valid:
        return (layer,)
    what = f"layer {layer} of a model with layers 0..{decoder.depth}: {config.method} is valid at {ranges(valid)}"
    if reads == "scale" and layer < decoder.depth:
        what += "; there the sum of gradient x activation is rounding noise, `reduction: l2` is not"
    raise InputError([Problem("attribution.layer", what)])


def cost_tokens(note: EncodedNote, is_shared: bool) -> int:
    """Tokens of a note's rows: the prefix alone if it is encoded once, else with its longest branch, per branch."""
    if is_shared or not note.questions:
        return len(note.prefix_ids)
    longest = max(len(q.suffix_ids) + max(map(len, q.option_ids)) - 1 for q in note.questions)
    return gradients.n_branches(note) * (len(note.prefix_ids) + longest)


def is_finite(result: NoteAttribution) -> bool:
    """Whether every number of a result can be used."""
    return bool(np.isfinite(result.relevance_QKN).all() and np.isfinite(result.margin_Q).all())


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. On a CPU that is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def merged(result: NoteAttribution, again: NoteAttribution, questions: Sequence[int]) -> NoteAttribution:
    """`result` with these questions replaced."""
    predicted = list(result.predicted_Q)
    margin, relevance, error = result.margin_Q.copy(), result.relevance_QKN.copy(), result.error_Q.copy()
    for new, q in enumerate(questions):
        predicted[q] = again.predicted_Q[new]
        margin[q], relevance[q] = again.margin_Q[new], again.relevance_QKN[new]
        if len(error):
            error[q] = again.error_Q[new]
    return NoteAttribution(tuple(predicted), margin, relevance, error)
