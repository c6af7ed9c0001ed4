"""A decoder from a GGUF file: config, weights and tokenizer as llama.cpp's converter had them before it wrote the file.

Nothing is guessed. Every setting and every tensor of the file must have its place in the model, and every parameter of
the model its tensor; a file with more or less is refused, because what is dropped in silence (a scaled position
encoding, say) leaves a model that runs and reads badly. Quantised blocks are turned back into numbers tensor by tensor,
so memory holds the model once, in the dtype asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from raypipe.errors import InputError, Problem
from raypipe.models.families import FAMILIES
from raypipe.models.weights import some_of

# GGUF's name of an architecture -> our family.
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}

_SETTINGS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
}
_OF_GEMMA = {"attention.sliding_window": "sliding_window", "final_logit_softcapping": "final_logit_softcapping"}
# Settings that only repeat others, and those of the position encoding, which _rope reads.
_ALSO_READ = {"vocab_size", "attention.value_length", "rope.dimension_count", "rope.freq_base"}
_SCALING = {"rope.scaling.type", "rope.scaling.factor"}
_SPECIAL = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
# llama.cpp's names of the ways to cut text into words: as GPT-2 does, and so with every digit apart.
_SPLIT_AS_GPT2 = {"default", "gpt-2", "olmo", "mpt", "jais"}
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GEMMA_27B_BLOCKS = 62  # the one Gemma 3 that scales attention by hidden size / heads; GGUF has no key for it
_LLAMA_FREQUENCIES = "rope_freqs.weight"
# Llama 3.1 and later scale slow rotations; of four numbers only the factor differs between the releases.
_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class GGUF:
    """A GGUF file, or the files into which `gguf-split` cut one, in order; the first holds all settings."""

    files: tuple[Path, ...]
    readers: tuple[Any, ...]  # gguf.GGUFReader

    @classmethod
    def open(cls, files: Sequence[Path]) -> GGUF:
        """Raises `InputError` if the gguf package is missing or a file is broken."""
        try:
            import gguf
        except ImportError:
            raise InputError("reading GGUF needs the gguf package: pip install gguf") from None
        readers = []
        for file in files:
            try:
                readers.append(gguf.GGUFReader(file))
            except (ValueError, IndexError, KeyError, OSError, OverflowError) as error:
                what = f"no whole GGUF file ({type(error).__name__}); copy it again and compare its checksum"
                raise InputError([Problem(str(file), what)]) from None
        return cls(tuple(files), tuple(readers))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """All settings but the long lists."""
        fields = self.readers[0].fields.items()
        return {name: field.contents() for name, field in fields if len(field.data) == 1}

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """The tensors of all files, by their GGUF names."""
        return {tensor.name: tensor for reader in self.readers for tensor in reader.tensors}

    @property
    def architecture(self) -> str:
        """GGUF's own name of it; refused if no family of ours has it."""
        name = str(self.metadata.get("general.architecture"))
        if self.metadata.get(f"{name}.attention.causal") is False:
            raise self.problem(f"architecture {name!r} is an encoder; raypipe needs a decoder")
        if name not in ARCHITECTURES:
            what = f"architecture {name!r} cannot be converted from GGUF, only {', '.join(ARCHITECTURES)}"
            raise self.problem(f"{what}; import the folder of safetensors it was made from")
        return name

    def problem(self, what: str) -> InputError:
        """An error that names the file."""
        return InputError([Problem(str(self.files[0]), what)])

    def get(self, key: str) -> Any:
        """A setting of the architecture, or None."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        # single precision in the file: the number meant is the shortest that rounds to it (1e-06, not 9.9999999e-07)
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def config(self) -> Any:
        """The model's config. Raises `InputError` if a setting of the file has no place in it."""
        family = ARCHITECTURES[self.architecture]
        names = _SETTINGS | (_OF_GEMMA if family == "gemma3_text" else {})
        self._refuse_settings_without_place(names)
        values = {ours: self.get(theirs) for theirs, ours in names.items()}
        values = {key: value for key, value in values.items() if value is not None}
        if missing := {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"} - values.keys():
            raise self.problem(f"has no {', '.join(sorted(missing))}; the file is not whole or of an old format")
        heads, width = values["num_attention_heads"], values["hidden_size"]
        values.setdefault("num_key_value_heads", heads)
        values.setdefault("head_dim", width // heads)
        for repeated in ("rope.dimension_count", "attention.value_length"):
            if (size := self.get(repeated)) not in (None, values["head_dim"]):
                raise self.problem(f"{repeated} is {size}, not the size of a head ({values['head_dim']}): unsupported")
        if family == "gemma3_text":
            is_27b = values["num_hidden_layers"] == _GEMMA_27B_BLOCKS
            values["query_pre_attn_scalar"] = width // heads if is_27b else values["head_dim"]
        return AutoConfig.for_model(
            family,
            **values,
            **self._rope(family, values),
            **{name: self.metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIAL.items()},
            vocab_size=int(self.tensors["token_embd.weight"].shape[-1]) if "token_embd.weight" in self.tensors else 0,
            tie_word_embeddings="output.weight" not in self.tensors,
        )

    def _refuse_settings_without_place(self, names: dict[str, str]) -> None:
        prefix = f"{self.architecture}."
        used = names.keys() | _ALSO_READ | _SCALING
        own = {key.removeprefix(prefix): value for key, value in self.metadata.items() if key.startswith(prefix)}
        lost = sorted(key for key, value in own.items() if key not in used and value)
        if self.get("rope.scaling.type") not in (None, "none", "linear"):
            lost.append(f"rope.scaling.type={self.get('rope.scaling.type')}")
        if lost:
            what = f"settings that would be lost: {', '.join(lost)}"
            raise self.problem(f"{what}; import the folder of safetensors it was made from")

    def _rope(self, family: str, values: dict[str, Any]) -> dict[str, Any]:
        """The position encoding, in the form of the family's config."""
        theta = self.get("rope.freq_base") or 10_000.0
        rope = {"rope_type": "default", "rope_theta": theta}
        factor = self.get("rope.scaling.factor")
        if factor and self.get("rope.scaling.type") != "none":
            rope = {"rope_type": "linear", "factor": factor, "rope_theta": theta}
        if _LLAMA_FREQUENCIES in self.tensors:
            rope = self._llama3_rope(values["head_dim"], theta)
        if family == "gemma3_text":  # blocks with a window have an encoding of their own, the same in every release
            window = {"rope_type": "default", "rope_theta": 10_000.0}
            return {"rope_parameters": {"full_attention": rope, "sliding_attention": window}}
        return {"rope_parameters": rope}

    def _llama3_rope(self, head_dim: int, theta: float) -> dict[str, Any]:
        """The settings that llama.cpp's converter turned into one factor per rotation; checked against all of them."""
        factors = torch.from_numpy(np.array(self.tensors[_LLAMA_FREQUENCIES].data, np.float32))
        rope = {"rope_type": "llama3", "factor": float(factors.max()), "rope_theta": theta, **_LLAMA3_ROPE}
        config = AutoConfig.for_model("llama", head_dim=head_dim, max_position_embeddings=8192, rope_parameters=rope)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
        if factors.shape != scaled.shape or not torch.allclose(plain / scaled, factors, rtol=1e-4):
            raise self.problem("its position encoding is not Llama 3's; import the folder of safetensors instead")
        return rope

    def model(self, config: Any, dtype: torch.dtype | None) -> Any:
        """The model with its weights in `dtype`; None: as the file has them, quantised ones in float32.

        Raises `InputError` if a parameter has no tensor, a tensor no parameter, or a quantisation is unknown.
        """
        import gguf

        dtype = dtype or self._own_dtype()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[self.architecture]
        names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
        shapes = {name: parameter.shape for name, parameter in model.state_dict().items()}
        if config.tie_word_embeddings:
            del shapes["lm_head.weight"]
        theirs = {name: str(names.get_name(name, try_suffixes=(".weight", ".bias"))) for name in shapes}
        missing = sorted(name for name in theirs.values() if name not in self.tensors)
        if missing:
            raise self.problem(f"lacks {len(missing)} tensors ({some_of(missing)}); give all parts of the file")
        extra = sorted(self.tensors.keys() - set(theirs.values()) - {_LLAMA_FREQUENCIES})
        if extra:
            what = f"{len(extra)} tensors have no place in a {config.model_type} model ({some_of(extra)})"
            raise self.problem(f"{what}; import the folder of safetensors it was made from")
        weights = {name: self._weight(theirs[name], shape, config).to(dtype) for name, shape in shapes.items()}
        if config.tie_word_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        model.load_state_dict(weights, assign=True)
        model.tie_weights()
        return model

    def _own_dtype(self) -> torch.dtype:
        plain = {"F16": torch.float16, "BF16": torch.bfloat16}
        return plain.get(self.tensors["token_embd.weight"].tensor_type.name, torch.float32)

    def _weight(self, name: str, shape: torch.Size, config: Any) -> torch.Tensor:
        """One tensor in float32, with what llama.cpp's converter changed in it undone."""
        import gguf

        tensor = self.tensors[name]
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            what = f"quantisation {tensor.tensor_type.name} cannot be converted; take a file in Q8_0, Q4_K_M or F16"
            raise self.problem(what) from None
        if values.shape != tuple(shape):
            raise self.problem(f"tensor {name} is {list(values.shape)}, expected {list(shape)}")
        if config.model_type == "llama" and (match := re.search(r"\.attn_([qk])\.", name)):
            heads = config.num_attention_heads if match[1] == "q" else config.num_key_value_heads
            # ggml rotates neighbouring rows, transformers rows half a head apart
            values = values.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        rules = FAMILIES[config.model_type].rules
        if name.endswith("norm.weight") and rules is not None:
            values = values - np.float32(rules.norm_offset)  # the file holds weight + offset
        return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))  # a copy of what is mapped from the file

    def tokenizer(self, scratch: Path) -> Any:
        """The fast tokenizer of the file. `scratch`: an empty folder, so that nothing beside the file is read."""
        (scratch / "model.gguf").symlink_to(self.files[0].resolve())
        try:
            tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf", trust_remote_code=False)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise self.problem(f"its tokenizer cannot be converted ({type(error).__name__})") from None
        self._split_as_learned(tokenizer)
        # A begin token that neither the tokenizer nor the chat template writes never stood before a text in training;
        # the file names one all the same, and prompts would begin with it.
        never = self.metadata.get("tokenizer.ggml.add_bos_token") is False
        if never and tokenizer.bos_token and tokenizer.bos_token not in (tokenizer.chat_template or ""):
            tokenizer.bos_token = None
        return tokenizer

    def _split_as_learned(self, tokenizer: Any) -> None:
        """Cut text into words the way the merges of a byte-level vocabulary were learned.

        Transformers takes GPT-2's way, without a word, where it does not know the name that the file gives to its own.
        """
        pre = self.metadata.get("tokenizer.ggml.pre") or "default"
        backend = tokenizer.backend_tokenizer
        if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) or pre in _SPLIT_AS_GPT2:
            return
        if pre not in _DIGITS_APART:
            what = f"its way to cut text into words ({pre!r}) is not known, so its tokens would be wrong"
            raise self.problem(f"{what}; import the folder of safetensors it was made from")
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
