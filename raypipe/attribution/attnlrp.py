"""AttnLRP: layer-wise relevance propagation for transformers, as gradient x activation with four edited gradients.

Achtibat et al. 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers" (2402.05602),
sections 3.2-3.3. Written from the paper's rules. With relevance R = x * gradient they become:

    normalisation     the scale 1/rms (1/std) is a constant                                  (identity rule)
    activation f      f(x) = x * c with c = f(x)/x a constant                                (identity rule)
    gate x up         each factor gets half: the gradient of the product is halved           (uniform rule)
    attention         both matrix products get halves: q and k a quarter each, v a half      (uniform rule)

Its authors describe the method as patented, so no default of raypipe uses it: a config must name it. docs/method.md,
section 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from raypipe.attribution import gradients
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.models.families import Rules
from raypipe.models.prompts import EncodedNote
from raypipe.models.swapping import attention_as

ATTENTION = "raypipe_attnlrp"  # the name under which transformers finds `_attention`
NEAR_ZERO = 1e-3  # |x| below which f(x)/x is read at this distance from 0: the quotient is smooth there


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """Relevance at any layers. It sums to the explained scalar up to bias terms (`error_Q`)."""
    with rules(request.decoder):
        return gradients.attribute(request, notes)


@contextmanager
def rules(decoder: Decoder) -> Iterator[None]:
    """Graphs recorded inside have the edited gradients; values stay what they are."""
    parts = decoder.loaded.family.rules
    if parts is None:  # the engine has refused that
        raise ValueError("no rules for this family")
    with ExitStack() as stack:
        for module in decoder.body.modules():
            if type(module).__name__.endswith("Norm"):
                stack.callback(module.register_forward_hook(_norm_rule(parts)).remove)
        for block in decoder.blocks:
            activation = block.get_submodule(parts.activation)
            stack.callback(activation.register_forward_hook(_activation_rule).remove)
            if parts.gated is not None:
                stack.callback(block.get_submodule(parts.gated).register_forward_pre_hook(_product_rule).remove)
        stack.enter_context(attention_as(decoder.model, ATTENTION))
        yield


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """x, with its gradient multiplied by `factor`."""
    return x * factor + (x * (1 - factor)).detach()


def _norm_rule(parts: Rules) -> Any:
    def hook(module: Any, args: tuple[Tensor], out: Tensor) -> Tensor:
        x = args[0].float()
        eps = getattr(module, "variance_epsilon", None) or module.eps
        if isinstance(module, nn.LayerNorm):
            x = x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps).detach()
        linear = (x * scale * (module.weight.float() + parts.norm_offset)).to(out.dtype)
        return out.detach() + linear - linear.detach()

    return hook


def _activation_rule(module: Any, args: tuple[Tensor], out: Tensor) -> Tensor:
    x = args[0]
    away = torch.where(x.detach().abs() < NEAR_ZERO, NEAR_ZERO, x.detach()).float()
    linear = x * (module.forward(away) / away).to(x.dtype)
    return out.detach() + linear - linear.detach()


def _product_rule(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (scaled_gradient(args[0], 0.5),)


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(
        module,
        scaled_gradient(query, 0.25),
        scaled_gradient(key, 0.25),
        scaled_gradient(value, 0.5),
        *args,
        **kwargs,
    )


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)

ATTNLRP = Method(attribute=attribute, reads=lambda _: "mixing", settings=frozenset({"reduction"}), needs_rules=True)
