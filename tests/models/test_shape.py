"""Sizes from a configuration are those of the model that is built from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raypipe.errors import InputError
from raypipe.models import shape
from raypipe.models.shape import Shape
from raypipe.training.throughput import Work, training_flops
from tests.tiny_models import CONFIGS, tiny_config, tiny_model


@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_without_numbers_has_the_shape_of_the_real_one(family: str) -> None:
    model = shape.of_config(tiny_config(family))
    assert all(p.is_meta for p in model.parameters())
    assert Shape.of(model) == Shape.of(tiny_model(family))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_a_forward_pass_is_a_third_of_full_training(family: str) -> None:
    model = tiny_model(family)
    of, work = Shape.of(model), Work(tokens=100, targets=7, pairs=5000)
    assert 3 * (of.forward(100, 5000) + of.head(7)) == pytest.approx(training_flops(model, work))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_a_token_meets_the_experts_that_it_is_sent_to(family: str) -> None:
    """Measured: the products of a forward pass, experts one by one."""
    model, tokens = tiny_model(family).eval(), 6
    model.set_experts_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model(input_ids=torch.arange(tokens)[None] + 5, use_cache=False)
    products = sum(n for name, n in counter.flop_counts["Global"].items() if "attention" not in str(name))
    assert 2 * Shape.of(model).block_weights * tokens == pytest.approx(products, rel=0.05)


def test_a_config_is_read_from_its_file_or_folder(tmp_path: Path) -> None:
    written = tiny_config("llama").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(written))
    for path in (tmp_path, tmp_path / "config.json"):
        assert Shape.of(shape.of_config(shape.read_config(path))) == Shape.of(tiny_model("llama"))


@pytest.mark.parametrize("text", ["{", '{"model_type": "nobody"}', '{"model_type": "bloom"}', "[]"])
def test_what_is_no_decoder_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        shape.read_config(tmp_path)
