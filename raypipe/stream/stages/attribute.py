"""Relevance of each word of a note for a few tasks. This stage needs the GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.guard.quiet import quiet
from raypipe.hashing import generator
from raypipe.models.prompts import EncodedNote, PromptEncoder, in_place
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.words import F32, SIGNS, relevance_of_words, word_spans

if TYPE_CHECKING:
    from raypipe.attribution import NoteAttribution


@quiet
class Attribute:
    """Notes in, notes with relevance out: rows.ATTRIBUTED, with the text and tags that the next stage needs."""

    def __init__(
        self,
        model: config.Model,
        attribution: config.Attribution,
        prompt: config.Prompt,
        tasks: Sequence[Task],
        seed: int,
        threads: int = 1,
        idf_V: F32 | None = None,
    ) -> None:
        import torch

        from raypipe.attribution import AttributionEngine
        from raypipe.models import loading

        torch.set_num_threads(threads)
        scorer = loading.load(model)
        self.attribution = attribution
        self.tasks = {task.id: task for task in tasks}
        self.seed = seed
        self.encoder = PromptEncoder(scorer.tokenizer, prompt, tasks, model.chat)
        self.engine = AttributionEngine(scorer, attribution, seed, idf_V)

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = table.to_pylist()
        encoded = [self.encoder.encode_row(note, self._tasks_of(note["note_id"])) for note in notes]
        results = in_place(encoded, self.engine.attribute)
        return rows.table([self._row(*parts) for parts in zip(notes, encoded, results, strict=True)], WITH_TEXT)

    def _tasks_of(self, note_id: str) -> list[str]:
        return tasks_of(note_id, list(self.tasks), self.attribution.tasks_per_note, self.seed)

    def _row(self, note: dict[str, Any], prompt: EncodedNote | Code, result: NoteAttribution | Code) -> dict[str, Any]:
        if isinstance(result, Code) or isinstance(prompt, Code):
            return {"note_id": note["note_id"], "error": str(result)}
        words = word_spans(note["text"])
        by_word = relevance_of_words(
            SIGNS[self.attribution.sign](result.relevance_QKN),
            prompt.offsets_N2,
            words,
            self.attribution.word_reduction,
        )
        # float16 holds 11 bits of a number between 6e-5 and 65504, so each map is divided by its peak
        peak = np.abs(by_word).max(axis=-1, keepdims=True, initial=0)
        by_word = np.divide(by_word, peak, out=np.zeros_like(by_word), where=peak > 0)
        options = [self.tasks[question.task_id].options for question in prompt.questions]
        return {
            "note_id": note["note_id"],
            "text": note["text"],
            "tags": note.get("tags"),
            "task_id": [question.task_id for question in prompt.questions],
            "predicted": [o[best] for o, best in zip(options, result.predicted_Q, strict=True)],
            "margin": result.margin_Q,
            "word_start": words[:, 0],
            "word_end": words[:, 1],
            "layers": list(self.engine.layers),
            "relevance": by_word.astype(np.float16).ravel(),
            "n_tokens": len(prompt.offsets_N2),
            "n_cut_tokens": prompt.n_cut_tokens,
        }


WITH_TEXT = pa.schema([*rows.ATTRIBUTED, ("text", pa.string()), ("tags", pa.string())])


def tasks_of(note_id: str, task_ids: Sequence[str], n: int | None, seed: int) -> list[str]:
    """The `n` tasks of a note (None: all): a seeded sample without replacement."""
    every = sorted(task_ids)
    if n is None or n >= len(every):
        return every
    return sorted(generator(seed, note_id).choice(every, size=n, replace=False).tolist())
