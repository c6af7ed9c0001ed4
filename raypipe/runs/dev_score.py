"""Scores on dev notes after each epoch of a fine-tuning: a curve, by which a search stops trials early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raypipe import rows
from raypipe.errors import Code
from raypipe.evaluation import metrics
from raypipe.evaluation.metrics import Metrics
from raypipe.evaluation.scoring import LabelScorer, prediction_rows
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, in_place
from raypipe.runs.run import Run
from raypipe.training.loss import autocast
from raypipe.training.trainer import TrainingSpec

Labelled = tuple[dict[str, Any], dict[str, str], EncodedNote | Code]


@dataclass
class DevScore:
    """Watches fine-tunings: their metrics get `dev_macro_f1` after each epoch, scored as `evaluation.mode: label` does.

    Of several workers each scores all dev notes: none waits for another.
    """

    run: Run
    student: str | None = None  # whose fine-tuning; None: of all
    on_epoch: Callable[[float, Metrics], None] = lambda epoch, scores: None
    with_last: bool = True  # False: the step `evaluate` scores the model that the last epoch leaves
    notes: list[Labelled] | None = field(default=None, init=False)

    def __call__(self, spec: TrainingSpec, model: Any, tokenizer: Any, step: dict[str, Any]) -> dict[str, float]:
        of_another = self.student is not None and not Path(spec.folder).match(f"finetune/{self.student}")
        is_last = step["step"] == step["steps"]
        if spec.dev_rows is None or of_another or "epoch" not in step or (is_last and not self.with_last):
            return {}
        with autocast(spec.training, model.device):  # as it trains: its frozen weights may be bfloat16
            scores = self._scores(model, tokenizer)
        self.on_epoch(float(step["epoch"]), scores)
        return {"dev_macro_f1": scores.macro_f1}

    @torch.no_grad()
    def _scores(self, model: Any, tokenizer: Any) -> Metrics:
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
        return metrics.evaluate(rows.table(out, rows.PREDICTIONS), self.run.corpus.tasks)
