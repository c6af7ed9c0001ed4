"""The variants that `raypipe faithfulness` compares: methods x targets x layers that are valid for the scorer."""

from __future__ import annotations

from collections.abc import Iterator

from raypipe.attribution import AttributionEngine
from raypipe.attribution.registry import method_of
from raypipe.errors import InputError, Problem
from raypipe.evaluation.hidden_states import layers_at
from raypipe.models.loading import Loaded
from raypipe.settings import config
from raypipe.words import F32


def variants(
    scorer: Loaded, options: config.Faithfulness, base: config.Attribution, idf_V: F32 | None = None
) -> tuple[dict[str, config.Attribution], list[str]]:
    """Settings by name, each with one layer; and the reasons why other variants are not possible.

    Raises `InputError` if a method does not exist or no variant is possible.
    """
    possible: dict[str, config.Attribution] = {}
    refused: list[Problem] = []
    for settings in _every(scorer, options, base):
        try:
            AttributionEngine(scorer, settings, idf_V=idf_V)
            possible[name_of(settings, len(options.targets) > 1)] = settings
        except InputError as error:
            refused += error.problems
    if not possible:
        raise InputError(refused or [Problem("faithfulness", "no methods, targets or layers are given")])
    return possible, list(dict.fromkeys(problem.what for problem in refused))


def name_of(settings: config.Attribution, with_target: bool) -> str:
    """For example `kv_direct layer 2`; the layer only if the method has layers."""
    method = settings.method if settings.reduction == "auto" else f"{settings.method}/{settings.reduction}"
    layer = "" if method_of(settings).reads(settings) == "none" else f" layer {settings.layer}"
    return f"{method}{layer}{f' {settings.target}' if with_target else ''}"


def _every(scorer: Loaded, options: config.Faithfulness, base: config.Attribution) -> Iterator[config.Attribution]:
    layers = layers_at(options.layers, scorer.model.config.num_hidden_layers)
    for name in options.methods:
        settings = base.named(name)
        reads = method_of(settings).reads(settings)
        for target in options.targets:
            for layer in [0] if reads == "none" else layers:
                yield settings.model_copy(update={"target": target, "layer": layer})
