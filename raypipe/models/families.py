"""What raypipe must know about a model family, one row each.

Everything else about a model is read from its config by transformers. To add a family, add a row: the contract tests
take it up by themselves with a tiny random model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as dotted paths from the `...ForCausalLM` module."""

    blocks: str  # the list of decoder blocks
    embeddings: str  # token embeddings
    final_norm: str
    sentinels: tuple[str, ...] = ()  # reserved tokens without a role, for masking; () = plain-text sentinels
    # What AttnLRP needs (attribution/attnlrp.py), as paths from a block.
    activation: str = "mlp.act_fn"
    gated: str | None = "mlp.down_proj"  # what reads the product of gate and up projection; None: MLP without a gate
    norm_offset: float = 0.0  # a normalisation multiplies by weight + offset


# Llama 3 names 0..255; the low ones became tool and turn tokens in later releases. Older Llama tokenizers have none.
_LLAMA = tuple(f"<|reserved_special_token_{n}|>" for n in range(100, 164))
_GEMMA = tuple(f"<unused{n}>" for n in range(10, 74))  # MedGemma thinks with 94 and 95
# Qwen (padding rows without a token), Phi-3 (six placeholders, too few), GPT-2 and NeoX have none: plain text.

FAMILIES: dict[str, Family] = {
    "llama": Family("model.layers", "model.embed_tokens", "model.norm", _LLAMA),
    "qwen2": Family("model.layers", "model.embed_tokens", "model.norm"),
    "qwen3": Family("model.layers", "model.embed_tokens", "model.norm"),
    "gemma3_text": Family("model.layers", "model.embed_tokens", "model.norm", _GEMMA, norm_offset=1.0),
    "phi3": Family("model.layers", "model.embed_tokens", "model.norm", activation="mlp.activation_fn"),
    "gpt2": Family("transformer.h", "transformer.wte", "transformer.ln_f", activation="mlp.act", gated=None),
    "gpt_neox": Family(
        "gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm", activation="mlp.act", gated=None
    ),
}
