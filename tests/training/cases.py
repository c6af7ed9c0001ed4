"""Rows, settings and comparisons of the training tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypipe.settings.config import Training
from raypipe.training import examples, loop, lora
from tests.tiny_models import tiny_model

PAD = 0

State = dict[str, torch.Tensor]


def rows_of_many_lengths(n: int = 24, seed: int = 0) -> examples.Examples:
    """Rows of different lengths, a third of them trees with two branches, mapped from a file as in a real training."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        length = int(rng.integers(6, 40))
        branch = [0] * length
        if i % 3 == 0:
            branch = [0] * (length - 4) + [1, 1, 2, 2]
        weight = rng.choice([0.0, 1.0, 0.5], size=length).astype(float)
        weight[0], weight[-1] = 0.0, 1.0
        row = {"input_ids": rng.integers(3, 300, length), "loss_weight": weight, "branch": branch}
        rows.append({"arm": "a", "key": f"{i:04d}", "draw": 0, **row})
    with tempfile.TemporaryDirectory() as folder:  # what is mapped stays readable
        examples.write(rows, Path(folder, "rows/0.parquet"))
        examples.store(Path(folder, "rows"), "a", Path(folder, "rows.arrow"))
        return examples.mapped(Path(folder, "rows.arrow"))


def settings(**changes: object) -> Training:
    """Six steps of eight of these rows."""
    return Training(**{"learning_rate": 1e-3, "epochs": 2, "batch_rows": 8, "seed": 3} | changes)


def fitted(folder: Path, training: Training, data: examples.Examples | None = None, **options: Any) -> State:
    """Weights of the tiny Llama after training, LoRA adapters among them. `options`: more arguments of `loop.fit`."""
    model = tiny_model("llama")
    if training.lora is not None:
        torch.manual_seed(0)  # the adapters'
        model = lora.add(model, training.lora).get_base_model()
    loop.fit(model, PAD, data or rows_of_many_lengths(), training, folder, **options)
    return model.state_dict()


def distance(a: State, b: State) -> float:
    """The largest difference of two weights."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """What was logged of every step, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


class Stopped(Exception):
    """What ends a training in the middle."""


def stop_after(step: int) -> Callable[[dict[str, Any]], dict[str, float]]:
    """For `on_step` of `loop.fit`: ends it in the step after."""

    def stop(metrics: dict[str, Any]) -> dict[str, float]:
        if metrics["step"] > step:
            raise Stopped
        return {}

    return stop
