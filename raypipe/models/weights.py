"""Whether a model's weights are whole: every tensor there, in the shape that its config asks for.

transformers fills what a folder lacks with random numbers and goes on. Here that is an error, found before anything
starts: the files' headers are compared with the model as transformers itself would fill it, without reading a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from raypipe.errors import Problem
from raypipe.records import json_of

INDEX = "model.safetensors.index.json"  # of a model in several files

Shapes = dict[str, tuple[int, ...]]


def model_problems(folder: Path) -> list[Problem]:
    """What is wrong with the weights of a local model folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return [Problem("model.path", "no *.safetensors in the folder; other weight formats are refused")]
    what = _model_problem(folder, _stamps([*files, folder / "config.json", folder / INDEX]))
    return [Problem("model.path", what)] if what else []


def adapter_problems(folder: Path, model: Path | None) -> list[Problem]:
    """What is wrong with a LoRA folder, alone and (if the model is a local folder) for this model."""
    if not (folder / "adapter_model.safetensors").is_file():
        return [Problem("model.adapter", "no adapter_model.safetensors in the folder; other formats are refused")]
    try:
        kind = json_of(folder / "adapter_config.json").get("peft_type")
    except (OSError, ValueError, AttributeError):
        return [Problem("model.adapter", "no readable adapter_config.json in the folder")]
    if kind != "LORA":
        return [Problem("model.adapter", f"is a {kind} adapter; only LORA is supported")]
    files = [folder / "adapter_model.safetensors", folder / "adapter_config.json"]
    what = _adapter_problem(folder, model, _stamps([*files, *([model / "config.json"] if model else [])]))
    return [Problem("model.adapter", what)] if what else []


def loading_problem(info: Mapping[str, Any]) -> str | None:
    """What transformers could not fill from the files (`output_loading_info`)."""
    if missing := sorted(info["missing_keys"]):
        return f"lacks {len(missing)} of the model's tensors ({some_of(missing)}); copy the folder again"
    if mismatched := sorted(str(key) for key, *_ in info["mismatched_keys"]):
        return f"{len(mismatched)} tensors have another shape than config.json says ({some_of(mismatched)})"
    return None


def some_of(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _stamps(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of files: what tells that a folder is the one that was looked at before."""
    facts = ((file, file.stat()) for file in files if file.exists())
    return tuple((file.name, stat.st_size, stat.st_mtime_ns) for file, stat in facts)


def _missing_shards(folder: Path) -> list[str]:
    """Files that the folder's index names and that are not there."""
    try:
        listed = json_of(folder / INDEX)["weight_map"].values()
        return sorted(name for name in set(listed) if not (folder / str(name)).exists())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


@cache
def _model_problem(folder: Path, _stamp: object) -> str | None:
    if shards := _missing_shards(folder):
        return f"{shards[0]} is missing; copy all the shards that {INDEX} lists"
    if damaged := [file.name for file in sorted(folder.glob("*.safetensors")) if _shapes(file) is None]:
        return f"{some_of(damaged)}: not a whole safetensors file; copy it again"
    try:
        _, info = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",  # names and shapes, no memory
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",  # any kind will do, and every family has this one
        )
    except Exception as error:  # a broken folder can fail anywhere in transformers
        return f"config.json and the weights do not make a model ({type(error).__name__})"
    return loading_problem(info)


@cache
def _adapter_problem(folder: Path, model: Path | None, _stamp: object) -> str | None:
    stored = _shapes(folder / "adapter_model.safetensors")
    if stored is None:
        return "adapter_model.safetensors is not a whole safetensors file; copy it again"
    if model is None:
        return None
    try:
        expected = _shapes_of_adapter(folder, model)
    except Exception as error:  # as above
        return f"does not fit the model ({type(error).__name__})"
    if missing := sorted(expected.keys() - stored.keys()):
        return f"lacks {len(missing)} of the tensors that adapter_config.json asks for ({some_of(missing)})"
    if wrong := sorted(name for name, shape in expected.items() if stored[name] != shape):
        return f"{len(wrong)} tensors have another shape than the model needs ({some_of(wrong)}): made for another one?"
    return None


def _shapes_of_adapter(folder: Path, model: Path) -> Shapes:
    """What PEFT would load for this model."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    settings = LoraConfig.from_pretrained(str(folder))
    settings.init_lora_weights = True  # shapes do not depend on it
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model, trust_remote_code=False))
        adapted = get_peft_model(bare, settings)
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _shapes(file: Path) -> Shapes | None:
    """Shapes by name from the header of a safetensors file; None if it is damaged, empty or of another kind."""
    try:
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError):
        return None
