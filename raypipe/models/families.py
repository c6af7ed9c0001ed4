"""What raypipe must know about a model family, one row each, and which models it refuses.

Everything else about a model is read from its config by transformers. To add a family, add a row and a tiny random
model (tests/tiny_models.py): the contract tests take both up by themselves. They compare token trees, padded batches,
shared notes and multi-token labels with plain prompts through the model's own code, beyond its attention window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Rules:
    """Where AttnLRP (attribution/attnlrp.py) finds the parts whose gradients it edits, as dotted paths from a block."""

    activation: str = "mlp.act_fn"
    gated: str | None = "mlp.down_proj"  # what reads the product of gate and up projection; None: MLP without a gate
    norm_offset: float = 0.0  # a normalisation multiplies by weight + offset


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as dotted paths from the `...ForCausalLM` module."""

    blocks: str = "model.layers"  # the list of decoder blocks, each with its MLP (or experts) as `mlp`
    embeddings: str = "model.embed_tokens"  # token embeddings
    sentinels: tuple[str, ...] = ()  # reserved tokens without a role, for masking; () = plain-text sentinels
    rules: Rules | None = None  # None: AttnLRP refuses the family, because nobody compared it with a reference
    attention: Literal["sdpa", "eager"] = "sdpa"  # eager: its attention has a part that the fast kernels lack
    takes_attention: bool = True  # its blocks run any attention function that is registered with transformers
    returns_tuple: bool = False  # a block returns (hidden states, ...) instead of hidden states


# Llama 3 names 0..255; the low ones became tool and turn tokens in later releases. Older Llama tokenizers have none.
_LLAMA = tuple(f"<|reserved_special_token_{n}|>" for n in range(100, 164))
_GEMMA = tuple(f"<unused{n}>" for n in range(10, 74))  # MedGemma thinks with 94 and 95
# Qwen (padding rows without a token), Phi-3 (six placeholders, too few), GPT-2 and NeoX have none: plain text.
_GPT2 = ("transformer.h", "transformer.wte")

FAMILIES: dict[str, Family] = {
    "llama": Family(sentinels=_LLAMA, rules=Rules()),
    "mistral": Family(rules=Rules()),
    "mixtral": Family(),
    "qwen2": Family(rules=Rules()),
    "qwen2_moe": Family(),
    "qwen3": Family(rules=Rules()),
    "gemma2": Family(sentinels=_GEMMA, attention="eager", takes_attention=False),  # soft-capped attention scores
    "gemma3_text": Family(sentinels=_GEMMA, rules=Rules(norm_offset=1.0)),
    "phi3": Family(rules=Rules(activation="mlp.activation_fn")),  # also Phi-3.5 and Phi-4
    "olmo2": Family(),
    "granite": Family(),
    "cohere": Family(),
    "cohere2": Family(),
    "smollm3": Family(),
    "stablelm": Family(),
    "starcoder2": Family(),
    "falcon": Family("transformer.h", "transformer.word_embeddings", takes_attention=False, returns_tuple=True),
    "gpt2": Family(*_GPT2, rules=Rules("mlp.act", gated=None)),
    "gptj": Family(*_GPT2, attention="eager", takes_attention=False, returns_tuple=True),
    "gpt_neox": Family("gpt_neox.layers", "gpt_neox.embed_in", rules=Rules("mlp.act", gated=None)),
}

_COUNTS_TOKENS = "its attention (ALiBi) counts the tokens between two words and takes no positions"
REFUSED = {
    "bloom": _COUNTS_TOKENS,
    "mpt": _COUNTS_TOKENS,
    "opt": "its blocks have no module for the MLP, of which only the rows that are read are computed",
}


def refusal(model_config: Any) -> str | None:
    """Why a model with this config cannot be used; None if it can."""
    family = model_config.model_type
    if family in REFUSED:
        return f"family {family!r} cannot be used: {REFUSED[family]}"
    if family not in FAMILIES:
        return f"family {family!r} is not known; known: {', '.join(sorted(FAMILIES))}"
    if not getattr(model_config, "is_causal", True) or getattr(model_config, "use_bidirectional_attention", None):
        return "the model attends in both directions (an embedding model); a scorer must be a causal decoder"
    if getattr(model_config, "alibi", False):
        return f"this {family} cannot be used: {_COUNTS_TOKENS}; a {family} with rotary positions can"
    others = set(getattr(model_config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        return f"it has layers of a kind that is not known: {', '.join(sorted(others))}"
    return None


def context(model_config: Any) -> int | None:
    """The longest prompt, in tokens, for which the model was made and raypipe is exact; None if there is no limit."""
    limits = [getattr(model_config, "max_position_embeddings", None), rotation_changes_at(model_config)]
    return min((limit for limit in limits if limit is not None), default=None)


def rotation_changes_at(model_config: Any) -> int | None:
    """Tokens beyond which a forward pass rotates all its tokens by the longest one; None for most models.

    LongRoPE (2402.13753) and dynamic NTK scaling choose their frequencies for a whole forward pass. Beyond their
    original context, a prompt would depend on what else is in the batch, and a note's keys on the question.
    """
    limits = []
    for rope in _rope_parameters(model_config):
        if rope.get("rope_type") == "longrope":
            limits.append(rope["original_max_position_embeddings"])
        if rope.get("rope_type") == "dynamic":
            limits.append(model_config.max_position_embeddings)
    return min(limits, default=None)


def too_long(model_config: Any, n_tokens: int) -> str | None:
    """Why a prompt of this length cannot be exact; None if it can."""
    limit = rotation_changes_at(model_config)
    if limit is None or n_tokens <= limit:
        return None
    return (
        f"a prompt has {n_tokens} tokens; beyond {limit}, this {model_config.model_type} scales its positions by the "
        f"longest prompt of a batch; set prompt.max_tokens to {limit} or less"
    )


def _rope_parameters(model_config: Any) -> Iterator[dict[str, Any]]:
    """One dict, or one for each kind of layer."""
    rope = getattr(model_config, "rope_parameters", None) or {}
    yield from (part for part in (rope, *rope.values()) if isinstance(part, dict))
