"""The loop against a plain Hugging Face Trainer: same rows in the same order, same optimiser, same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments

from raypipe.settings.config import Training
from raypipe.training import examples, schedule
from tests.tiny_models import tiny_model
from tests.training.cases import PAD, State, distance, fitted, metrics_of, settings

IGNORED = -100  # the label that transformers leaves out of the loss


def _rows(fixed: bool) -> examples.Examples:
    """24 plain sequences: of 20 tokens that all count, or of 6 to 39 of which every other one does."""
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(24):
        length = 20 if fixed else int(rng.integers(6, 40))
        weight = np.ones(length) if fixed else rng.choice([0.0, 1.0], size=length)
        weight[0], weight[-1] = 0.0, 1.0
        rows.append({"input_ids": rng.integers(3, 300, length), "loss_weight": weight, "branch": [0] * length})
    return examples.from_rows(rows)


class _Trainer(Trainer):
    """Trainer with our schedule; it has no cosine that begins where ours does."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        factor = schedule.learning_rate_factor
        warmup = self.args.warmup_steps
        self.lr_scheduler = LambdaLR(self.optimizer, lambda step: factor(step, num_training_steps, warmup))
        return self.lr_scheduler


def _collate(rows: list[tuple[Any, Any]]) -> dict[str, torch.Tensor]:
    """Right-padded to the longest of the batch."""
    width = max(len(ids) for ids, _ in rows)
    shape = len(rows), width
    ids, labels, keep = np.full(shape, PAD), np.full(shape, IGNORED), np.zeros(shape, int)
    for i, (row, weight) in enumerate(rows):
        ids[i, : len(row)], keep[i, : len(row)] = row, 1
        labels[i, : len(row)] = np.where(weight > 0, row, IGNORED)
    tensors = map(torch.from_numpy, (ids, labels, keep))
    return dict(zip(("input_ids", "labels", "attention_mask"), tensors, strict=True))


def _reference(data: examples.Examples, training: Training, accumulate: int, folder: Path) -> tuple[State, list[float]]:
    """Weights and the loss of every step of a Trainer run."""
    plan = np.concatenate(schedule.steps(data.length, data.draw, training))
    model = tiny_model("llama")
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=training.batch_rows // accumulate,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,  # the plan holds all epochs
        train_sampling_strategy="sequential",
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        max_grad_norm=training.clip,
        logging_steps=1,
        logging_first_step=True,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    rows = [data.row(int(i))[:2] for i in plan]
    trainer = _Trainer(model=model, args=arguments, train_dataset=rows, data_collator=_collate)
    trainer.train()
    return model.state_dict(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("fixed", "accumulate"), [(True, 1), (False, 1), (False, 4)])
def test_equals_hugging_face_trainer(fixed: bool, accumulate: int, tmp_path: Path) -> None:
    """With 4 passes a step, Trainer too must weigh tokens by all of the step's (num_items_in_batch)."""
    data, training = _rows(fixed), settings(micro_batch_tokens=100, weight_decay=0.1)
    ours = fitted(tmp_path / "ours", training, data)
    theirs, losses = _reference(data, training, accumulate, tmp_path / "theirs")
    assert [step["loss"] for step in metrics_of(tmp_path / "ours")] == pytest.approx(losses, rel=1e-4)
    assert distance(ours, theirs) < 1e-4  # AdamW makes of the rounding of tiny gradients up to its whole step, 1e-3
    assert distance(ours, tiny_model("llama").state_dict()) > 1e-3
