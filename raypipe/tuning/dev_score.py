"""Dev macro F1 while a student is fine-tuned, once per epoch, so that a scheduler can stop trials that fall behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raypipe import rows
from raypipe.errors import Code
from raypipe.evaluation import metrics
from raypipe.evaluation.scoring import LabelScorer, prediction_rows
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, in_place
from raypipe.runs.run import Run
from raypipe.training.loss import autocast
from raypipe.training.trainer import TrainingSpec

Labelled = tuple[dict[str, Any], dict[str, str], EncodedNote | Code]


class DevScore:
    """Watches the fine-tuning of an arm's first student; `on_epoch(epoch, macro F1)` after each epoch but the last.

    The last is scored by the step `evaluate`, as every run does.
    """

    def __init__(self, run: Run, arm: str, on_epoch: Callable[[float, float], None]) -> None:
        self.run, self.on_epoch = run, on_epoch
        self.student = f"finetune/{run.students(arm)[0]}"
        self.notes: list[Labelled] | None = None

    def __call__(self, spec: TrainingSpec, model: Any, tokenizer: Any, step: dict[str, Any]) -> None:
        if not Path(spec.folder).match(self.student) or step["step"] >= step["steps"]:
            return
        epochs = max(1, math.ceil(spec.training.epochs))
        ends = {round(step["steps"] * epoch / epochs): epoch for epoch in range(1, epochs)}
        if step["step"] in ends:
            with autocast(spec.training, model.device):  # as it trains: its frozen weights may be bfloat16
                self.on_epoch(float(ends[step["step"]]), self._macro_f1(model, tokenizer))

    @torch.no_grad()
    def _macro_f1(self, model: Any, tokenizer: Any) -> float:
        if self.notes is None:
            encoder, labelled = self.run.encoder(), self.run.corpus.labelled("dev")
            self.notes = [(note, labels, encoder.encode_row(note, list(labels))) for note, labels in labelled]
        was_training, device = model.training, next(model.parameters()).device
        model.eval()
        loaded = Loaded(model, tokenizer, FAMILIES[model.config.model_type], device)
        scorer = LabelScorer(loaded, self.run.settings.evaluation.batch_tokens)
        answered = in_place([prompt for *_, prompt in self.notes], scorer.score)
        model.train(was_training)
        options = {task.id: task.options for task in self.run.corpus.tasks}
        out = [
            row
            for (note, labels, _), answers in zip(self.notes, answered, strict=True)
            for row in prediction_rows(note, labels, answers, options)
        ]
        return metrics.evaluate(rows.table(out, rows.PREDICTIONS), self.run.corpus.tasks).macro_f1
