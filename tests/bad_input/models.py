"""Model folders, adapters, tokenizers, chat templates, GGUF files: broken, hostile, or of another kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.bad_input.case import CANARY, Accepted, Case, Handled, Refused
from tests.bad_input.ground import Ground, write_config

CHECK = ("check", "--config", "c.yaml")
PICKLE = b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."
WEIGHTS = "model/model.safetensors"


def _json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (values | changes).items() if value != "REMOVE"}))


def _tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return sorted(tensors)[0]


# Keys of config.json, by what stands there instead
KEYS: dict[str, tuple[Any, ...]] = {
    "model_type": ("nosuch", "bert", "REMOVE", 5, None, CANARY),
    "hidden_size": (0, -1, 48, "32", None, 10**9),
    "num_hidden_layers": (0, -1, 9, "4", 2),
    "num_attention_heads": (0, 3, -4, None),
    "num_key_value_heads": (0, 3),
    "intermediate_size": (0, 49),
    "vocab_size": (0, -1, 7, 10**9),
    "rope_parameters": ("x", {"rope_type": CANARY}, {"rope_type": "linear"}),
    "hidden_act": ("nosuch", None),
    "quantization_config": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": CANARY}),
    "torch_dtype": (CANARY,),
    "attn_implementation": ("kernels-community/flash-attn",),
    "_attn_implementation_internal": ("someone/kernel",),
    "auto_map": ({"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"},),
    "architectures": ([CANARY],),
}
# These values are as good as the right ones, or are never read
HARMLESS = {
    ("_attn_implementation_internal", "someone/kernel"),
    ("attn_implementation", "kernels-community/flash-attn"),
    ("architectures", str([CANARY])),
    ("num_hidden_layers", "2"),
    ("torch_dtype", CANARY),
    ("auto_map", str(KEYS["auto_map"][0])),
}
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "model/config.json").unlink(), "model.path"),
    "an empty config": (lambda f: (f / "model/config.json").write_text(""), "model.path"),
    "a list": (lambda f: (f / "model/config.json").write_text("[]"), "model.path"),
    "deep": (lambda f: (f / "model/config.json").write_text("[" * 100_000), "model.path"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "model.path: no *.safetensors"),
    "pickled weights": (
        lambda f: ((f / WEIGHTS).unlink(), (f / "model/pytorch_model.bin").write_bytes(PICKLE)),
        "no *.safetensors",
    ),
    "a pickle called safetensors": (lambda f: (f / WEIGHTS).write_bytes(PICKLE), "model.path"),
    "empty weights": (lambda f: (f / WEIGHTS).write_bytes(b""), "model.path"),
    "cut weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-50]), "model.path"),
    "a cut header": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:50]), "model.path"),
    "a huge header": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 7 + b"\x0f" + b"{}"), "model.path"),
    "a tensor less": (lambda f: _tensors(f / WEIGHTS, lambda t: t.pop(_first(t))), "model.path"),
    "all tensors less": (
        lambda f: _tensors(f / WEIGHTS, lambda t: (t.clear(), t.update(a=torch.zeros(1)))),
        "model.path",
    ),
    "another shape": (
        lambda f: _tensors(f / WEIGHTS, lambda t: t.update({_first(t): torch.zeros(3, 3)})),
        "model.path",
    ),
    "another name": (
        lambda f: _tensors(f / WEIGHTS, lambda t: t.update({"x" + _first(t): t.pop(_first(t))})),
        "model.path",
    ),
    "a folder in the place of weights": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "model.path"),
    "an index of nothing": (
        lambda f: (f / "model/model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
        "model.path",
    ),
    "no tokenizer": (lambda f: (f / "model/tokenizer.json").unlink(), "model.path"),
    "an empty tokenizer": (lambda f: (f / "model/tokenizer.json").write_text(""), "model.path"),
    "a tokenizer of nothing": (lambda f: (f / "model/tokenizer.json").write_text("{}"), "model.path"),
    "a cut tokenizer": (
        lambda f: (f / "model/tokenizer.json").write_text((f / "model/tokenizer.json").read_text()[:-9]),
        "model.path",
    ),
    "a tokenizer of foreign code": (
        lambda f: _json(
            f / "model/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="T"
        ),
        "model.path",
    ),
    "no end": (
        lambda f: _json(f / "model/tokenizer_config.json", eos_token="REMOVE", pad_token="REMOVE"),
        "model.path",
    ),
    "an endless template": (
        lambda f: _json(
            f / "model/tokenizer_config.json",
            chat_template="{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        ),
        "template",
    ),
    "a template of nothing": (
        lambda f: _json(f / "model/tokenizer_config.json", chat_template="{{ nosuch.x.y }}"),
        "template",
    ),
    "a broken template": (lambda f: _json(f / "model/tokenizer_config.json", chat_template="{% if %}"), "template"),
    "a template that raises": (
        lambda f: _json(f / "model/tokenizer_config.json", chat_template="{{ raise_exception('" + CANARY + "') }}"),
        "template",
    ),
    "a template that reads": (
        lambda f: _json(
            f / "model/tokenizer_config.json", chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"
        ),
        "template",
    ),
}


def folders(ground: Ground) -> Iterator[Case]:
    """A local model folder, broken in one place."""
    for name, (change, place) in FOLDERS.items():
        yield Case(name, CHECK, Refused(place), change, ground.project)
    for key, values in KEYS.items():
        for value in values:
            place = "the model has layers 0.." if key == "num_hidden_layers" and value in (0, -1) else "model.path"
            outcome = Accepted("ok, ") if (key, str(value)) in HARMLESS else Refused(place)
            yield Case(
                f"{key}: {value}",
                CHECK,
                outcome,
                lambda f, c={key: value}: _json(f / "model/config.json", **c),
                ground.project,
            )
    for key in json.loads((ground.project / "model/config.json").read_text()):
        for value in (None, [], {"a": 1}, CANARY):
            yield Case(
                f"{key}: {value!r}",
                CHECK,
                Handled(""),
                lambda f, c={key: value}: _json(f / "model/config.json", **c),
                ground.project,
            )


def _adapter(folder: Path, config: Any, weights: bytes | None = None) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is None:
        save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter/adapter_model.safetensors")
    else:
        (folder / "adapter/adapter_model.safetensors").write_bytes(weights)
    write_config(folder, model__adapter="adapter")


def adapters(ground: Ground) -> Iterator[Case]:
    """LoRA folders, and folders of other adapters."""
    lora = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    for name, config in {
        "of prompts": lora | {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}},
        "of nothing": {},
        "a list": [],
        "no JSON": "{",
        "deep": "[" * 100_000,
        "of other modules": lora | {"target_modules": ["nosuch"]},
        "no rank": lora | {"r": 0},
        "a rank of words": lora | {"r": CANARY},
        "an unknown key": lora | {CANARY: 1},
        "as it should be, but its weights": lora,
    }.items():
        yield Case(name, CHECK, Refused("model.adapter"), lambda f, c=config: _adapter(f, c), ground.project)
    for name, weights in {"empty": b"", "a pickle": PICKLE, "cut": b"\x10\0\0\0\0\0\0\0{}"}.items():
        yield Case(
            f"{name} weights",
            CHECK,
            Refused("model.adapter"),
            lambda f, w=weights: _adapter(f, lora, w),
            ground.project,
        )


def imported(ground: Ground) -> Iterator[Case]:
    """What `raypipe import` is given."""
    gguf = b"GGUF\x03\0\0\0"
    for name, content in {
        "empty": b"",
        "no GGUF": CANARY.encode() * 20,
        "a cut head": gguf,
        "an old version": b"GGUF\x01\0\0\0" + bytes(16),
        "counts": gguf + b"\xff" * 16,
        "no tensor": gguf + bytes(16),
        "a pickle": PICKLE,
        "zeros": bytes(4096),
    }.items():
        yield Case(
            f"gguf {name}",
            ("import", "m.gguf", "out"),
            Refused("m.gguf"),
            lambda f, c=content: (f / "m.gguf").write_bytes(c),
        )
    for name, (change, _) in FOLDERS.items():
        if "template" not in name and name != "no end":
            yield Case(f"folder, {name}", ("import", "model", "out"), Handled(""), change, ground.project)
    for source, out, place in (
        ("nowhere", "out", "nowhere"),
        ("c.yaml", "out", "c.yaml"),
        ("model", "model", "model"),
        ("model", "c.yaml", "c.yaml"),
    ):
        yield Case(f"import {source} {out}", ("import", source, out), Refused(place), of=ground.project)
    bundle = ("bundle", "out", "--source", "nowhere")
    yield Case("bundle of nothing", bundle, Refused("--source"), of=ground.project)
    yield Case(
        "bundle over a folder", ("bundle", "model", "--source", "."), Refused("is there already"), of=ground.project
    )
    yield Case(
        "bundle of a pickle",
        (*bundle, "--model", "model"),
        Refused("--model"),
        lambda f: (shutil.rmtree(f / "model"), (f / "model").mkdir()),
        ground.project,
    )
