"""A model or adapter folder that is not whole is one clear line before anything starts, never random weights."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raypipe.errors import InputError
from raypipe.models import loading
from raypipe.settings import config
from raypipe.training import lora
from tests.tiny_models import CONFIGS, tiny_model, tiny_tokenizer

Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    lora.add(tiny_model("llama"), config.Lora(rank=2)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def refusal(model: Path, adapter: Path | None = None) -> str:
    with pytest.raises(InputError) as refused:
        loading.check(config.Model(path=str(model), adapter=str(adapter) if adapter else None))
    (problem,) = refused.value.problems
    assert "\n" not in str(problem)
    return str(problem)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """A change of a folder's tensors."""

    def apply(path: Path) -> None:
        (file,) = path.glob("*.safetensors")
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return apply


def settings(name: str = "config.json", **changes: Any) -> Change:
    """A change of a folder's JSON."""

    def apply(path: Path) -> None:
        (path / name).write_text(json.dumps(json.loads((path / name).read_text()) | changes))

    return apply


def bytes_of(change: Callable[[bytes], bytes]) -> Change:
    """A change of a weight file's bytes."""

    def apply(path: Path) -> None:
        (file,) = path.glob("*.safetensors")
        file.write_bytes(change(file.read_bytes()))

    return apply


DAMAGED: dict[str, Change] = {
    "truncated": bytes_of(lambda content: content[: len(content) // 2]),
    "short by a byte": bytes_of(lambda content: content[:-1]),
    "empty": bytes_of(lambda content: b""),
    "pickled": bytes_of(lambda content: pickle.dumps({"a": 1})),
}
BAD_MODELS: dict[str, tuple[Change, str]] = {
    **{name: (change, "not a whole safetensors file") for name, change in DAMAGED.items()},
    "lacks a block": (tensors(lambda t: {k: v for k, v in t.items() if ".layers.1." not in k}), "lacks 9 of"),
    "lacks embeddings": (tensors(lambda t: {k: v for k, v in t.items() if "embed" not in k}), "embed_tokens"),
    "no tensor": (tensors(lambda t: {}), "lacks"),
    "another width": (tensors(lambda t: t | {"model.norm.weight": torch.ones(31)}), "model.norm.weight"),
    "hidden size": (settings(hidden_size=64), "another shape"),
    "more blocks": (settings(num_hidden_layers=5), "lacks 9 of"),
    "no heads": (settings(num_attention_heads=0), "model folder"),
    "text for a number": (settings(hidden_size="big"), "model folder"),
    "quantised": (settings(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "no config": (lambda path: (path / "config.json").unlink(), "model folder"),
    "config is a list": (lambda path: (path / "config.json").write_text("[1]"), "model folder"),
    "index without shards": (
        lambda path: (
            (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors"),
            (path / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}})
            ),
        ),
        "model-00002-of-00002.safetensors is missing",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_broken_model_folder_is_one_line(name: str, folder: Path) -> None:
    change, says = BAD_MODELS[name]
    change(folder)
    assert says in refusal(folder)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_tensor_of_every_family_is_needed(family: str, tmp_path: Path) -> None:
    """Whole, the folder is taken; without any one tensor, or with one of another shape, it is not."""
    tiny_model(family).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    assert loading.check(config.Model(path=str(tmp_path))).model_type == family
    for name in sorted(whole)[:: max(1, len(whole) // 6)]:
        save_file({k: v for k, v in whole.items() if k != name}, file, metadata={"format": "pt"})
        # tied ones count twice; experts are stored one by one and loaded as one tensor, which fails as a whole
        assert re.search(r"lacks [12] of the model.s tensors|do not make a model", refusal(tmp_path))
        save_file(whole | {name: torch.zeros(3, 5)}, file, metadata={"format": "pt"})
        assert re.search("1 tensors have another shape|do not make a model", refusal(tmp_path))


@pytest.mark.parametrize("settings_of_attention", [{"attn_implementation": "someone/kernel"}, {"use_kernels": True}])
def test_kernels_named_in_a_config_are_not_used(settings_of_attention: dict[str, Any], folder: Path) -> None:
    settings(**settings_of_attention)(folder)
    assert loading.load(config.Model(path=str(folder), device="cpu")).model.config._attn_implementation == "sdpa"


BAD_ADAPTERS: dict[str, tuple[Change, str]] = {
    **{name: (change, "not a whole safetensors file") for name, change in DAMAGED.items()},
    "lacks a tensor": (tensors(lambda t: dict(list(t.items())[1:])), "lacks 1 of"),
    "another rank": (settings("adapter_config.json", r=4), "another shape"),
    "another target": (settings("adapter_config.json", target_modules=["nowhere"]), "does not fit the model"),
    "a list": (lambda path: (path / "adapter_config.json").write_text("[1]"), "adapter_config.json"),
}


@pytest.mark.parametrize("name", BAD_ADAPTERS)
def test_a_broken_adapter_is_one_line(name: str, folder: Path, adapter: Path) -> None:
    change, says = BAD_ADAPTERS[name]
    change(adapter)
    assert says in refusal(folder, adapter)


def test_an_adapter_of_another_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    lora.add(tiny_model("gpt2"), config.Lora(rank=2)).save_pretrained(tmp_path / "other")
    assert "does not fit the model" in refusal(folder, tmp_path / "other")


def test_a_model_with_an_adapter_can_be_trained(folder: Path, adapter: Path) -> None:
    section = config.Model(path=str(folder), adapter=str(adapter), device="cpu")
    assert all(parameter.requires_grad for parameter in loading.load(section).model.parameters())
