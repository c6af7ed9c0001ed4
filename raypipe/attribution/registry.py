"""METHODS: the attribution methods, by the name that a config uses.

To add one, write it as a `Method` in a file of its own and enter it here. The contract tests then cover it.
"""

from __future__ import annotations

from raypipe.attribution.attention_mean import ATTENTION_MEAN
from raypipe.attribution.attnlrp import ATTNLRP
from raypipe.attribution.captum_layer import PREFIX, captum_layer, names, settings_of
from raypipe.attribution.grad_x_activation import GRAD_X_ACTIVATION
from raypipe.attribution.integrated_gradients import INTEGRATED_GRADIENTS
from raypipe.attribution.kv_direct import KV_DIRECT, KV_DIRECT_VALUE
from raypipe.attribution.method import Method
from raypipe.attribution.occlusion import OCCLUSION
from raypipe.attribution.random_relevance import RANDOM
from raypipe.attribution.tfidf import TFIDF
from raypipe.errors import InputError, Problem
from raypipe.models.families import FAMILIES
from raypipe.settings import config

METHODS: dict[str, Method] = {
    "grad_x_activation": GRAD_X_ACTIVATION,
    "integrated_gradients": INTEGRATED_GRADIENTS,
    "attnlrp": ATTNLRP,
    "kv_direct": KV_DIRECT,
    "kv_direct_value": KV_DIRECT_VALUE,
    "occlusion": OCCLUSION,
    "attention_mean": ATTENTION_MEAN,
    "gradient_shap": captum_layer("LayerGradientShap", frozenset({"reduction", "baseline"})),
    "deeplift": captum_layer("LayerDeepLift", frozenset({"reduction", "baseline"})),
    "tfidf": TFIDF,
    "random": RANDOM,
}


def method_of(config: config.Attribution) -> Method:
    """The method that the config names: a key of METHODS, or captum:<LayerMethod>.

    Raises `InputError` with all valid names.
    """
    if config.method in METHODS:
        return METHODS[config.method]
    name = config.method.removeprefix(PREFIX)
    if name in names() and config.method.startswith(PREFIX):
        return captum_layer(name, settings_of(name))
    valid = ", ".join([*METHODS, *(PREFIX + name for name in names())])
    raise InputError([Problem("attribution.method", f"{config.method!r} is not a method; known: {valid}")])


def lacks_rules(config: config.Attribution, family: str) -> str | None:
    """Why the method cannot be used on models of this family; None if it can, or if the method is not known."""
    method = METHODS.get(config.method)
    if method is None or not method.needs_rules or FAMILIES[family].rules is not None:
        return None
    return f"{config.method} has no tested rules for {family}; use grad_x_activation"
