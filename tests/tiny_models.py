"""Tiny random decoders of every family, and a byte-level BPE tokenizer trained on the spot: tests need no download.

Weights are large on purpose (activations of order 1, biases and norm gains not trivial), so that a rule that is wrong
for one family shows, and each call returns a fresh copy, so that a test may train, freeze or cast its model.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded

TEXTS = (
    "Paziente di anni 74, giunge in PS per dispnea ingravescente e febbre da tre giorni.",
    "Nega dolore toracico. In anamnesi diabete mellito tipo 2, ipertensione arteriosa in terapia.",
    "All'esame obiettivo: vigile, orientato, MV ridotto alla base destra, edemi declivi assenti.",
    "Rx torace: addensamento basale destro. Si ricovera in pneumologia per polmonite.",
    "Caduta accidentale a domicilio con trauma cranico, non perdita di coscienza. TC encefalo negativa.",
    "Cefalea e vomito da ieri; riferita assunzione di paracetamolo 1000 mg senza beneficio.",
    "Il paziente presenta? sì no non noto presente assente acuta cronica dolore tosse sincope",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
WINDOW: dict[str, Any] = {"sliding_window": 8}  # shorter than every note of the tests
BY_LAYER: dict[str, Any] = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**GROUPED, "tie_word_embeddings": True},
    "mistral": {**GROUPED, "head_dim": 8, **WINDOW},
    "mixtral": {**GROUPED, "head_dim": 8, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": GROUPED,
    "qwen2_moe": {
        **GROUPED,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 2,  # every second block has experts
        "use_sliding_window": True,
        "max_window_layers": 4,
        **BY_LAYER,
    },
    "qwen3": {**GROUPED, "head_dim": 8, "use_sliding_window": True, "max_window_layers": 2, **WINDOW},
    "gemma2": {
        **GROUPED,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        **BY_LAYER,
    },
    "gemma3_text": {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, **BY_LAYER},
    "phi3": {**GROUPED, "original_max_position_embeddings": 256, **WINDOW},
    "olmo2": GROUPED,
    "granite": {
        **GROUPED,
        "logits_scaling": 4.0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
    },
    "cohere": {**GROUPED, "logit_scale": 0.25, "use_qk_norm": True},
    "cohere2": {**GROUPED, "head_dim": 8, "logit_scale": 0.25, **BY_LAYER},
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, **BY_LAYER},
    "stablelm": {**GROUPED, "use_parallel_residual": True, "qk_layernorm": True, "partial_rotary_factor": 0.5},
    "starcoder2": {**GROUPED, **WINDOW},
    "falcon": {**COMMON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 48, "n_positions": 256, "initializer_range": 0.2},
    "gptj": {
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_inner": 48,
        "n_positions": 256,
        "rotary_dim": 4,
        "initializer_range": 0.2,
    },
    "gpt_neox": {**COMMON, "rotary_pct": 0.5},
}
ORIGINAL = 12  # tokens for which rotary positions were trained before they were scaled; shorter than every prompt


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


# Other configurations of the same families: each takes another way through the model's code.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, linear": ("llama", _rope("linear", factor=4.0)),
    "llama, yarn": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=ORIGINAL)),
    "llama, llama3": (
        "llama",
        _rope(
            "llama3",
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=ORIGINAL,
        ),
    ),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "max_window_layers": 2, **WINDOW}),
    "gemma3_text, soft caps": ("gemma3_text", {"final_logit_softcapping": 3.0}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "falcon, as the 7B": ("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "falcon, as the 1B": (
        "falcon",
        {"new_decoder_architecture": False, "multi_query": False, "parallel_attn": False, "num_kv_heads": 4},
    ),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm, sequential": ("stablelm", {"use_parallel_residual": False, "qk_layernorm": False}),
    # exact to the end of the original context, refused beyond it
    "llama, dynamic": ("llama", {**_rope("dynamic", factor=4.0), "max_position_embeddings": 64}),
    "phi3, longrope": (
        "phi3",
        {
            **_rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4),
            "original_max_position_embeddings": 64,
        },
    ),
}


@cache
def _tokenizer(chat: bool) -> Any:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_tokenizer(chat: bool = False) -> Any:
    """A byte-level BPE fast tokenizer with <pad>, <s> and </s>, and a chat template if asked for. Not shared."""
    return copy.deepcopy(_tokenizer(chat))


def tiny_config(name: str) -> Any:
    """The config of the tiny model of a family or variant."""
    family, changes = VARIANTS.get(name, (name, {}))
    tokenizer = _tokenizer(False)
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return AutoConfig.for_model(family, **{**CONFIGS[family], **special, **changes})


@cache
def _model(name: str) -> Any:
    config = tiny_config(name)
    # forked: the caller's random stream stays where it is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, config.model_type)))
        attention = FAMILIES[config.model_type].attention
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny_model(name: str = "llama") -> Any:
    """A random float32 model of a family or variant in eval mode: 4 blocks, width 32. A fresh copy at each call."""
    return copy.deepcopy(_model(name))


def tiny_loaded(name: str = "llama", chat: bool = False) -> Loaded:
    """What `models.loading.load` would return for the tiny model of this family or variant."""
    model = tiny_model(name)
    return Loaded(model, tiny_tokenizer(chat), FAMILIES[model.config.model_type], torch.device("cpu"))
