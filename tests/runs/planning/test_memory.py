"""What a GPU must hold, against what torch allocates for the same model."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from raypipe.models.shape import Shape
from raypipe.runs.planning import memory
from raypipe.runs.planning.tokens import Model
from raypipe.runs.run import Run
from raypipe.settings.config import Attribution, Lora, Training
from raypipe.training import examples, schedule
from tests.small_run import settings
from tests.tiny_models import tiny_config, tiny_model, tiny_tokenizer


class _Material:
    """A run and its model: all that memory depends on."""

    def __init__(self, **changes: Any) -> None:
        self.run = Run(settings(Path("."), **changes))
        self.model = Model("tiny", tiny_config("llama"), tiny_tokenizer(), "", None, 0, torch.bfloat16, None)

        self.shape = Shape.of(tiny_model("llama"))

    def layers(self, attribution: Attribution) -> tuple[int, ...]:
        return (0,)


def _training(training: Training, is_gpu: bool = True, **changes: Any) -> dict[str, float]:
    return memory.of_training(_Material(**changes), "train", training, is_gpu).parts  # type: ignore[arg-type]


def test_all_weights_have_gradients_and_two_moments() -> None:
    n = Shape.of(tiny_model("llama")).parameters
    parts = _training(Training(precision="float32"))
    assert (parts["weights"], parts["gradients"], parts["optimiser"]) == (4 * n, 4 * n, 8 * n)
    assert "bfloat16 copies" not in parts


def test_adapters_alone_have_gradients() -> None:
    whole, adapters = _training(Training()), _training(Training(lora=Lora(rank=2)))
    assert adapters["optimiser"] < whole["optimiser"] / 4
    assert adapters["weights"] < whole["weights"]  # stored in bfloat16, and frozen


def test_shards_and_checkpoints_make_it_smaller() -> None:
    whole = _training(Training())
    sharded = _training(Training(), resources__sharding="fsdp2", resources__training_workers=4)
    assert sharded["optimiser"] == whole["optimiser"] / 4
    assert _training(Training(gradient_checkpointing=True))["activations"] < whole["activations"] / 2


def test_activations_are_about_what_the_backward_pass_keeps() -> None:
    model = tiny_model("llama")
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = 128
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.model(input_ids=torch.arange(3, tokens + 3)[None], use_cache=False).last_hidden_state
    assert out.requires_grad
    planned = Shape.of(model).activation_bytes(4) * 4 * tokens
    assert planned == pytest.approx(sum(held.values()), rel=0.4)


def test_a_method_without_a_graph_of_the_note_holds_less() -> None:
    material = _Material()
    of = [memory.of_scorer(material, Attribution(method=m), True).total for m in ("kv_direct", "grad_x_activation")]  # type: ignore[arg-type]
    assert of[0] < of[1]


def test_the_order_of_rows_in_a_worker_is_what_a_plan_says(tmp_path: Path) -> None:
    n, training = 50_000, Training(epochs=2, batch_rows=16)
    row = {"input_ids": [1], "loss_weight": [1.0], "branch": [0], "arm": "a", "draw": 0}
    examples.write([{**row, "key": f"{i:09d}"} for i in range(n)], tmp_path / "rows/0.parquet")
    examples.store(tmp_path / "rows", "a", tmp_path / "rows.arrow")
    tracemalloc.start()  # numpy and Python tell it what they hold
    mapped = examples.mapped(tmp_path / "rows.arrow")
    order = schedule.steps(mapped.length, mapped.draw, training)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(order) == 2 * n / 16
    assert memory.host_bytes(n, training) == pytest.approx(held, rel=0.1)
