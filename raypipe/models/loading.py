"""Load a decoder and its tokenizer: local folder or pinned hub revision, safetensors only, never remote code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from raypipe.errors import InputError, Problem
from raypipe.models import tree_masks, weights
from raypipe.models.families import FAMILIES, Family, refusal
from raypipe.settings import config
from raypipe.words import F32

# Its progress bars and its warnings about long notes (which are cut later) would fill every worker's log.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()

logger = logging.getLogger(__name__)

# As torch names them, on x86 (AVX-512, AMX) and on ARM.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")

BEGIN, END, PAD = "<s>", "</s>", "<pad>"  # of tokenizers that `pretrain` makes


@contextmanager
def without_renamed() -> Iterator[None]:
    """No warnings of transformers that activation checkpointing has another name now."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`.*gradient_checkpointing.*` is deprecated", FutureWarning)
        yield


@dataclass(frozen=True)
class Loaded:
    """A decoder ready to run, with its tokenizer."""

    model: Any  # transformers.PreTrainedModel, in eval mode
    tokenizer: Any  # transformers.PreTrainedTokenizerFast, with a pad token
    family: Family
    device: torch.device


def device_of(section: config.Model) -> torch.device:
    """The device that `device: auto` means here."""
    if section.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(section.device)


def dtype_of(section: config.Model, device: torch.device) -> torch.dtype:
    """The dtype that a section's `dtype` means on this device: bfloat16 only where the device can multiply it."""
    if section.dtype == "float32" or (section.dtype == "auto" and device.type == "cpu"):
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Does the device have bfloat16 products? One without them (a GPU before Ampere, too) emulates each, slower."""
    if device.type == "cuda":
        has_them = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_them = device.type != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in BFLOAT16_INSTRUCTIONS)
    if not has_them:
        _say_once("no bfloat16 products on this device: float32 is used instead, which is faster here and more exact")
    return has_them


@cache
def _say_once(message: str) -> None:
    logger.warning(message)


def attention_of(section: config.Model, model_config: Any) -> str:
    """transformers' name of the attention that a model runs with."""
    return tree_masks.FLEX if section.attention == "flex" else FAMILIES[model_config.model_type].attention


def check(section: config.Model) -> Any:
    """The model's config. Raises `InputError` with every reason why the model cannot be used.

    Of a local folder the headers of the weights are looked at, too; no tensor is read.
    """
    is_local = Path(section.path).is_dir()
    if not is_local and section.revision is None:
        hint = "no such folder; a hub id needs model.revision, the 40-digit commit to pin"
        raise InputError([Problem("model.path", hint)])
    try:
        model_config = AutoConfig.from_pretrained(section.path, revision=section.revision, trust_remote_code=False)
    except Exception as error:  # a broken config.json can fail anywhere in transformers
        raise InputError([Problem("model.path", f"not a readable model folder ({type(error).__name__})")]) from None
    problems = _config_problems(model_config)
    if section.attention == "flex" and not problems:
        problems += _flex_problems(section, model_config)
    if is_local and not problems:
        problems += weights.model_problems(Path(section.path))
    if section.adapter is not None:
        fits = is_local and not problems  # else only the adapter's own files can be looked at
        problems += weights.adapter_problems(Path(section.adapter), Path(section.path) if fits else None)
    if problems:
        raise InputError(problems)
    return model_config


def _flex_problems(section: config.Model, model_config: Any) -> list[Problem]:
    """Why FlexAttention cannot run here."""
    reasons = []
    if device_of(section).type == "cpu":
        reasons.append("`flex` needs a GPU: on a CPU it has no backward pass; take `sdpa`")
    if not AutoModelForCausalLM._model_mapping[type(model_config)]._supports_flex_attn:
        reasons.append(f"transformers has no `flex` for the family {model_config.model_type}; take `sdpa`")
    return [Problem("model.attention", reason) for reason in reasons]


def _config_problems(model_config: Any) -> list[Problem]:
    """Why a model with this config cannot be used, before its weights are looked at."""
    if (reason := refusal(model_config)) is not None:
        return [Problem("model.path", reason)]
    if getattr(model_config, "quantization_config", None) is not None:
        what = "is quantised (quantization_config in config.json); take the checkpoint it was made from, or its GGUF"
        return [Problem("model.path", what)]
    return []


def load_tokenizer(section: config.Model) -> Any:
    """The fast tokenizer, with a pad token (the end-of-text token if it has none of its own)."""
    tokenizer = AutoTokenizer.from_pretrained(section.path, revision=section.revision, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError([Problem("model.path", "the tokenizer is a slow one; character offsets need a fast one")])
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError([Problem("model.path", "the tokenizer has neither a pad nor an end-of-text token")])
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def beyond(tokenizer: Any, n_rows: int) -> list[Problem]:
    """Special tokens without a row among the model's embeddings: a padded batch would fail on a GPU without a word."""
    numbers = {tokenizer.pad_token: tokenizer.pad_token_id, tokenizer.bos_token: tokenizer.bos_token_id}
    numbers[tokenizer.eos_token] = tokenizer.eos_token_id
    what = f"of the tokenizer has no place among the model's {n_rows:,}: take the model's own tokenizer"
    return [
        Problem("model.path", f"token {number} ({token}) {what}")
        for token, number in numbers.items()
        if number is not None and number >= n_rows
    ]


def load(section: config.Model, dtype: torch.dtype | None = None) -> Loaded:
    """The model on its device, in eval mode, adapter merged. `dtype`: instead of the section's."""
    model_config = check(section)
    device = device_of(section)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            section.path,
            revision=section.revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype or dtype_of(section, device),
            attn_implementation=attention_of(section, model_config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        what = f"the weights cannot be loaded ({type(error).__name__})"
        raise InputError([Problem("model.path", what)]) from None
    if problem := weights.loading_problem(info):  # of a hub id, whose files `check` has not seen
        raise InputError([Problem("model.path", problem)])
    if section.adapter is not None:
        model = _with_adapter(model, section.adapter)
    tokenizer = load_tokenizer(section)
    if problems := beyond(tokenizer, model.get_input_embeddings().weight.shape[0]):
        raise InputError(problems)
    return Loaded(model.to(device).eval(), tokenizer, FAMILIES[model_config.model_type], device)


def _with_adapter(model: Any, adapter: str) -> Any:
    """The adapter's part added to the weights, which can be trained like any others."""
    from peft import PeftModel

    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        what = f"does not fit the model ({type(error).__name__})"
        raise InputError([Problem("model.adapter", what)]) from None
    return merged.requires_grad_(True)  # PEFT leaves all of it frozen


def stored_dtype(section: config.Model) -> torch.dtype:
    """The dtype that a model's weights are stored in: what its config says, else float32."""
    return getattr(check(section), "dtype", None) or torch.float32


def cast_parameters(model: Any, dtype: torch.dtype) -> None:
    """Weights to another dtype, in place. Buffers stay: rotary frequencies are computed in float32 in every model."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype


def embeddings(section: config.Model) -> F32:
    """The input embeddings [V, D] alone; all other weights stay on disk."""
    name = f"{FAMILIES[check(section).model_type].embeddings}.weight"
    for file in sorted(_folder(section).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (no mapping)
                if f".{name}".endswith(f".{key}"):  # some hub models leave out the first part of the path
                    return tensors.get_tensor(key).float().numpy()
    raise InputError([Problem("model.path", f"no tensor {name} in its *.safetensors")])


def _folder(section: config.Model) -> Path:
    if Path(section.path).is_dir():
        return Path(section.path)
    return Path(snapshot_download(section.path, revision=section.revision, allow_patterns=["*.safetensors"]))


def train_tokenizer(texts: Iterable[str], pretrain: config.Pretrain, folder: Path) -> None:
    """A byte-level BPE tokenizer of `pretrain.vocab_size`, trained on `texts` and saved to `folder`.

    The family's mask sentinels come on top: one token each instead of several, and their rows train with the others.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    # digits apart: lab values must not become rare words
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pretrain.vocab_size,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, pad_token=PAD, model_max_length=pretrain.context
    )
    fast.add_special_tokens({"additional_special_tokens": list(FAMILIES[pretrain.family].sentinels)})
    fast.save_pretrained(folder)


def from_scratch(pretrain: config.Pretrain, tokenizer: Any) -> Any:
    """A decoder of `pretrain.family` with random weights (seed torch first)."""
    own = {"qwen3": {"num_key_value_heads": pretrain.heads, "head_dim": pretrain.hidden_size // pretrain.heads}}
    settings = AutoConfig.for_model(
        pretrain.family,
        vocab_size=len(tokenizer),
        hidden_size=pretrain.hidden_size,
        intermediate_size=pretrain.intermediate_size,
        num_hidden_layers=pretrain.layers,
        num_attention_heads=pretrain.heads,
        max_position_embeddings=pretrain.context,
        initializer_range=pretrain.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **own.get(pretrain.family, {}),
    )
    return AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")


def random_like(section: config.Model) -> Any:
    """A model of the same architecture with random weights (seed torch first): the control for pretraining."""
    model_config = check(section)
    attention = attention_of(section, model_config)
    return AutoModelForCausalLM.from_config(model_config, attn_implementation=attention).float()


def set_dropout(model: Any, rate: float) -> None:
    """Attention dropout of a model whose family has it; residual dropout is set where there are such modules."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = rate
