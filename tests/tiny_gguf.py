"""A tiny decoder written as GGUF, the way llama.cpp's converter writes one: for the tests of `raypipe import`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

NORMAL, CONTROL = 1, 3  # GGUF's token types
ARCHITECTURE = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}
Numbers = np.ndarray[Any, Any]


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    kind: Kind = Kind.F32,
    change: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    tensors: Callable[[dict[str, Numbers]], None] = lambda tensors: None,
    split_tensors: int = 0,
    pre: str = "",
) -> dict[str, Numbers]:
    """Write `model`; returns what each of its parameters is worth in the file, by its name in the model.

    `change` may add settings, `tensors` take away or add tensors; `split_tensors`: as gguf-split, n to a file; `pre`:
    the name of the way to cut text into words, by default that of the architecture.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, ARCHITECTURE[config.model_type], split_max_tensors=split_tensors)
    _settings(writer, config)
    _tokens(writer, tokenizer, pre or ("qwen2" if config.model_type.startswith("qwen") else "default"))
    change(writer)
    names = gguf.get_tensor_name_map(writer_arch(writer), config.num_hidden_layers)
    written: dict[str, Numbers] = {}
    worth = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        values = parameter.float().numpy()
        rounded = _rounded(values, kind) if values.ndim == 2 else values
        worth[name] = rounded
        written[theirs] = _as_llama_cpp(name, rounded, config)
    tensors(written)
    for name, values in written.items():
        own = kind if values.ndim == 2 and (kind is not Kind.Q8_0 or values.shape[-1] % 32 == 0) else Kind.F32
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return worth


def writer_arch(writer: gguf.GGUFWriter) -> Any:
    """The package's number for the writer's architecture."""
    return {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[writer.arch]


def _rounded(values: Numbers, kind: Kind) -> Numbers:
    if kind is Kind.Q8_0 and values.shape[-1] % 32:
        return values
    return np.array(gguf.dequantize(gguf.quantize(values, kind), kind), np.float32).reshape(values.shape)


def _as_llama_cpp(name: str, values: Numbers, config: Any) -> Numbers:
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        return values.reshape(heads, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
    return values + 1 if config.model_type == "gemma3_text" and name.endswith("norm.weight") else values


def _settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope: Mapping[str, Any] = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    if hasattr(config, "head_dim"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def _tokens(writer: gguf.GGUFWriter, tokenizer: Any, pre: str) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    is_bytes = "▁" not in tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2" if is_bytes else "llama")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id[number] for number in range(len(by_id))])
    if not is_bytes:
        writer.add_token_scores([-float(number) for number in range(len(by_id))])
    special = set(tokenizer.all_special_tokens)
    writer.add_token_types([CONTROL if by_id[number] in special else NORMAL for number in range(len(by_id))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
