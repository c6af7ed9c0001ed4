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
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

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
CONFIGS: dict[str, Any] = {
    "llama": lambda **kw: LlamaConfig(**GROUPED, tie_word_embeddings=True, **kw),
    "qwen2": lambda **kw: Qwen2Config(**GROUPED, **kw),
    "qwen3": lambda **kw: Qwen3Config(**GROUPED, head_dim=8, **kw),
    "gemma3_text": lambda **kw: Gemma3TextConfig(
        **GROUPED,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,  # shorter than every note of the tests
        layer_types=["sliding_attention", "full_attention"] * 2,
        **kw,
    ),
    "phi3": lambda **kw: Phi3Config(**GROUPED, original_max_position_embeddings=256, **kw),
    "gpt2": lambda **kw: GPT2Config(
        n_embd=32, n_layer=4, n_head=4, n_inner=48, n_positions=256, initializer_range=0.2, **kw
    ),
    "gpt_neox": lambda **kw: GPTNeoXConfig(**COMMON, rotary_pct=0.5, **kw),
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


@cache
def _model(family: str) -> Any:
    tokenizer = _tokenizer(False)
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    # forked: the caller's random stream stays where it is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, family)))
        model = AutoModelForCausalLM.from_config(CONFIGS[family](**special), attn_implementation="sdpa")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny_model(family: str = "llama") -> Any:
    """A random float32 model in eval mode: 4 blocks, width 32, 256 positions. A fresh copy at each call."""
    return copy.deepcopy(_model(family))


def tiny_loaded(family: str = "llama", chat: bool = False) -> Loaded:
    """What `models.loading.load` would return for the tiny model of this family."""
    return Loaded(tiny_model(family), tiny_tokenizer(chat), FAMILIES[family], torch.device("cpu"))
