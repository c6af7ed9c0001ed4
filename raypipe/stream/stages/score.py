"""Predictions of one model for the labelled notes of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import RowError
from raypipe.guard.quiet import quiet
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.words import F32


@quiet
class Score:
    """Notes in, one row of rows.PREDICTIONS for each label of `split` out."""

    def __init__(
        self,
        model: config.Model,
        prompt: config.Prompt,
        tasks: Sequence[Task],
        labels: str,
        evaluation: config.Evaluation,
        split: str,
    ) -> None:
        from raypipe.evaluation.scoring import LabelScorer
        from raypipe.models import loading

        loaded = loading.load(model)
        self.encoder = PromptEncoder(loaded.tokenizer, prompt, tasks, use_chat=model.chat == "auto")
        self.scorer = LabelScorer(loaded, evaluation.batch_tokens)
        self.mode = evaluation.mode
        self.options = {task.id: task.options for task in tasks}
        self.labels: dict[str, dict[str, str]] = defaultdict(dict)
        for label in rows.read(labels, filters=pc.field("split") == split).to_pylist():
            self.labels[label["note_id"]][label["task_id"]] = label["label"]

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = [note for note in table.to_pylist() if note["note_id"] in self.labels]
        encoded = [self._encode(note) for note in notes]
        scored = iter(self._answers([note for note in encoded if note is not None]))
        out: list[dict[str, Any]] = []
        for note, prompt in zip(notes, encoded, strict=True):
            answers = next(scored) if prompt is not None else None
            for index, (task_id, label) in enumerate(self.labels[note["note_id"]].items()):
                names = task_id, note["note_id"], note["group_id"], label
                if answers is None:
                    out.append(rows.prediction(*names))
                else:
                    best, scores_C = answers[index]
                    out.append(rows.prediction(*names, self.options[task_id][best], scores_C))
        return rows.table(out, rows.PREDICTIONS)

    def _answers(self, notes: list[EncodedNote]) -> list[list[tuple[int, F32]]]:
        """For each note and question: the chosen option and the scores [C] of all."""
        if self.mode == "generate":
            return self.scorer.generate(notes, self.encoder.eos_id)
        return [[(int(scores_C.argmax()), scores_C) for scores_C in of_note] for of_note in self.scorer.score(notes)]

    def _encode(self, note: dict[str, Any]) -> EncodedNote | None:
        try:
            return self.encoder.encode(note["note_id"], note["text"], list(self.labels[note["note_id"]]))
        except RowError:
            return None
