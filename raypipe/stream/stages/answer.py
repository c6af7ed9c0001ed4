"""Pseudo-labels: the scorer's answers to the tasks of unlabelled notes, and the confident ones as training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.errors import Code
from raypipe.guard.quiet import quiet
from raypipe.models.prompts import PromptEncoder, in_place
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.training.examples import STORED, receipt
from raypipe.training.pseudo_labels import Limits, is_kept
from raypipe.training.supervised import training_rows

if TYPE_CHECKING:
    from raypipe.evaluation.scoring import Answers


@quiet
class Answer:
    """Notes in, the same notes with an answer to every task out (rows.ANSWERED)."""

    def __init__(
        self, model: config.Model, prompt: config.Prompt, tasks: Sequence[Task], batch_tokens: int, threads: int
    ) -> None:
        import torch

        from raypipe.evaluation.scoring import LabelScorer
        from raypipe.models import loading

        torch.set_num_threads(threads)
        loaded = loading.load(model)
        self.encoder = PromptEncoder(loaded.tokenizer, prompt, tasks, model.chat)
        self.scorer = LabelScorer(loaded, batch_tokens)
        self.tasks = {task.id: task for task in tasks}

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = table.to_pylist()
        encoded = [self.encoder.encode_row(note, list(self.tasks)) for note in notes]
        answered = zip(notes, in_place(encoded, self.scorer.score), strict=True)
        return rows.table([self._row(note, answers) for note, answers in answered], rows.ANSWERED)

    def _row(self, note: dict[str, Any], answers: Answers | Code) -> dict[str, Any]:
        if isinstance(answers, Code):
            return {"note_id": note["note_id"], "error": answers.value}
        return {
            "note_id": note["note_id"],
            "text": note["text"],
            "task_id": list(self.tasks),
            "predicted": [task.options[best] for task, (best, _) in zip(self.tasks.values(), answers, strict=True)],
            "confidence": [np.exp(score_C[best] - np.logaddexp.reduce(score_C)) for best, score_C in answers],
        }


@quiet
class Teach:
    """Answered notes in; out fine-tuning rows of each arm, made of the answers that it accepts, and receipts."""

    def __init__(
        self,
        model: config.Model,
        prompt: config.Prompt,
        tasks: Sequence[Task],
        accepted: Mapping[str, Limits],
    ) -> None:
        from raypipe.models import loading

        self.encoder = PromptEncoder(loading.load_tokenizer(model), prompt, tasks, model.chat)
        self.options = {task.id: task.options for task in tasks}
        self.accepted = accepted

    def __call__(self, table: pa.Table) -> pa.Table:
        out = []
        for note in table.filter(table["error"].is_null()).to_pylist():
            answers = list(zip(note["task_id"], note["predicted"], note["confidence"], strict=True))
            for arm, limits in self.accepted.items():
                chosen = {
                    task_id: self.options[task_id].index(answer)
                    for task_id, answer, sure in answers
                    if is_kept(note["note_id"], task_id, answer, sure, limits)
                }
                encoded = self.encoder.encode(note["note_id"], note["text"], list(chosen))
                for part, row in enumerate(training_rows(encoded, chosen, self.encoder.eos_id)):
                    out.append({"arm": arm, "key": f"{note['note_id']}\t{part}", "draw": 0, **row})
        out += [receipt(note_id) for note_id in table["note_id"].to_pylist()]
        return rows.table(out, STORED)
