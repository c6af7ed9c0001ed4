"""Predictions of one model for the labelled notes of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.models.prompts import PromptEncoder, in_place
from raypipe.notes.tasks import Task
from raypipe.settings import config


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
        from raypipe.evaluation.scoring import LabelScorer, prediction_rows
        from raypipe.models import loading

        loaded = loading.load(model)
        self.encoder = PromptEncoder(loaded.tokenizer, prompt, tasks, model.chat)
        scorer = LabelScorer(loaded, evaluation.batch_tokens)
        generate = partial(scorer.generate, eos_id=self.encoder.eos_id)
        self.answer = generate if evaluation.mode == "generate" else scorer.score
        self.rows_of = partial(prediction_rows, options={task.id: task.options for task in tasks})
        self.labels: dict[str, dict[str, str]] = defaultdict(dict)
        for label in rows.read(labels, filters=pc.field("split") == split).to_pylist():
            self.labels[label["note_id"]][label["task_id"]] = label["label"]

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = [note for note in table.to_pylist() if note["note_id"] in self.labels]
        encoded = [self.encoder.encode_row(note, list(self.labels[note["note_id"]])) for note in notes]
        answered = zip(notes, in_place(encoded, self.answer), strict=True)
        out = [row for note, answers in answered for row in self.rows_of(note, self.labels[note["note_id"]], answers)]
        return rows.table(out, rows.PREDICTIONS)
