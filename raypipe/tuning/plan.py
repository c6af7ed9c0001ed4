"""A space and a model as one study: checked before anything starts, and the config of each of its trials."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from raypipe.attribution.layers import masking_layer, valid_at, valid_layers
from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE
from raypipe.runs.check import of_settings
from raypipe.settings.arms import masking_of, with_matched
from raypipe.settings.config import Arm, Config, Masking
from raypipe.settings.yamlfile import did_you_mean
from raypipe.tuning import samplers
from raypipe.tuning.backbones import Backbone
from raypipe.tuning.space import LAYER, Space

COMBINATIONS = 256  # of values that are tried on the config before a study starts


@dataclass(frozen=True)
class Plan:
    """One study: a model, what varies, and the arm that it varies for."""

    backbone: Backbone
    space: Space
    arm: str
    params: dict[str, Any]  # of the space, layers that are the same in this model once only

    @property
    def n_trials(self) -> int:
        """How many trials the study will have."""
        grids = [len(samplers.values(sampler)) for sampler in self.params.values() if samplers.is_grid(sampler)]
        return self.space.num_samples * math.prod(grids)

    @property
    def constants(self) -> dict[str, Any]:
        """What all trials have in common of the space."""
        return {key: value for key, value in self.params.items() if not samplers.is_sampler(value)}

    def config(self, values: Mapping[str, Any], name: str, runs: str) -> Config:
        """The resolved config of the run `<runs>/<name>`: one arm, scored on dev, layers as numbers."""
        config = self.backbone.config(values, self.space.path)
        own = config.arms[self.arm].attribution
        attribution = own or config.attribution
        changes = {
            "name": name,
            "runs": runs,
            "arms": _arms(config, self.arm),
            "evaluation.split": "dev",  # the test split is never read by a search
            "evaluation.conformal": None,
            "evaluation.embeddings": False,
            "probe.arms": None,
            "attribution": attribution,
            "attribution.layer": masking_layer(attribution, self.backbone.depth),
            "attribution.keep": "all",  # one pass serves the trials of every layer
            **({"data.max_unlabelled": config.tune.max_unlabelled} if config.tune.max_unlabelled else {}),
        }
        return configure(config, changes)

    def best(self, values: Mapping[str, Any], name: str) -> Config:
        """The config as the user wrote it with the values of a trial: all arms, all notes, its own split."""
        return configure(self.backbone.config(values, self.space.path), {"name": name})


def configure(config: Config, changes: Mapping[str, Any]) -> Config:
    """A resolved config with other values; they are known to be right."""
    for dotted, value in changes.items():
        section, _, key = dotted.rpartition(".")
        if section:
            config = config.model_copy(update={section: getattr(config, section).model_copy(update={key: value})})
        else:
            config = config.model_copy(update={key: value})
    return config


def plans(space: Space, backbones: Sequence[Backbone]) -> list[Plan]:
    """One study per model. Raises `InputError` with everything that is wrong with the space, for all models."""
    problems: dict[Problem, None] = {}
    out = []
    for backbone in backbones:
        before = len(problems)
        arm = _arm(space, backbone, problems)
        _check_values(space, backbone, problems)
        if len(problems) == before and arm is not None:
            out.append(Plan(backbone, space, arm, _once(space, backbone)))
            problems.update(dict.fromkeys(_combined(out[-1])))
    if problems:
        raise InputError(list(problems))
    return out


def identity(config: Config) -> str:
    """A fingerprint of all in a trial's config that its result may depend on."""
    but = {"resources", "tune", "runs", "comparison", "faithfulness"}
    return fingerprint(config.model_dump(mode="json", exclude=but))


def _where(space: Space, key: str) -> str:
    return f"{space.path}: PARAM_SPACE[{key!r}]"


def _arm(space: Space, backbone: Backbone, problems: dict[Problem, None]) -> str | None:
    """The arm that is searched: said by ARM or by the keys; else the only one that masks, or masks by relevance."""
    config = backbone.config({})
    named = sorted({key.split(".")[1] for key in space.params if key.startswith("arms.") and key.count(".") > 1})
    for name in [*named, *([space.arm] if space.arm else [])]:
        if name not in config.arms:
            known = f"no such arm; the config has {', '.join(config.arms)}{did_you_mean(name, config.arms)}"
            problems[Problem(f"{space.path}: arms.{name}", known)] = None
    masked = {name: arm.masking for name, arm in config.arms.items() if arm.masking is not None}
    by_relevance = [name for name, masking in masked.items() if RELEVANCE in needs({name: masking})]
    candidates = [space.arm] if space.arm else next((c for c in (named, list(masked), by_relevance) if len(c) == 1), [])
    if len(named) > 1 and not space.arm:
        candidates = []
    if not candidates:
        problems[Problem(f"{space.path}: ARM", f"must say which arm to search: {', '.join(config.arms)}")] = None
    return candidates[0] if candidates else None


def _check_values(space: Space, backbone: Backbone, problems: dict[Problem, None]) -> None:
    """Each value of each key against the config, the other keys as the config has them."""
    for key, sampler in space.params.items():
        for value in samplers.values(sampler):
            try:
                backbone.config({key: value}, _where(space, key))
            except InputError as error:
                shown = [Problem(p.where, f"{p.what}; value {value!r}") for p in error.problems]
                problems.update(dict.fromkeys(shown))


def _once(space: Space, backbone: Backbone) -> dict[str, Any]:
    """Fractions of the depth may meet in one layer of a shallow model: a grid tries each layer once."""
    out = dict(space.params)
    for key, grid in space.params.items():
        if key.endswith(LAYER) and samplers.is_grid(grid):
            kept: dict[Any, Any] = {}
            for value in samplers.values(grid):
                kept.setdefault(round(value * backbone.depth) if isinstance(value, float) else value, value)
            out[key] = {samplers.GRID: list(kept.values())}
    return out


def _combined(plan: Plan) -> Iterator[Problem]:
    """What only values together can get wrong: layers against methods, keys that nobody reads."""
    every = {key: samplers.values(sampler) for key, sampler in plan.params.items()}
    alike = {key for key, values in every.items() if len(values) > 1}  # keys of which no value has changed a trial
    for values in _combinations(every):
        config = plan.config(values, "trial", "runs")
        layer, depth = config.attribution.layer, plan.backbone.depth
        if layer not in valid_layers(config.attribution, depth):
            key = next((key for key in values if key.endswith(LAYER)), LAYER)
            asked = values.get(key, layer)
            what = (
                f"layer {layer} (asked: {asked}) of {plan.backbone.name}, which has layers 0..{depth}: "
                f"{valid_at(config.attribution, depth)}"
            )
            yield Problem(_where(plan.space, key), what)
        yield from (Problem(f"{plan.space.path}: {p.where}", p.what) for p in of_settings(config))
        same = identity(config)
        alike = {
            key
            for key in alike
            if all(identity(plan.config({**values, key: other}, "trial", "runs")) == same for other in every[key])
        }
    for key in sorted(alike):
        yield Problem(_where(plan.space, key), f"changes nothing for {plan.arm}, the arm that is searched; remove it")


def _combinations(every: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """All, up to COMBINATIONS; beyond that, each value once and a seeded sample."""
    n = 1
    for values in every.values():
        n *= len(values)
    if n <= COMBINATIONS:
        yield from (dict(zip(every, values, strict=True)) for values in product(*every.values()))
        return
    longest = max(map(len, every.values()))
    yield from ({key: values[i % len(values)] for key, values in every.items()} for i in range(longest))
    rng = random.Random(0)  # noqa: S311 (no secret)
    draws = iter(lambda: {key: rng.choice(values) for key, values in every.items()}, None)
    yield from islice(draws, COMBINATIONS)


def _arms(config: Config, arm: str) -> dict[str, Arm]:
    """The arm with what its masks depend on of other arms: whom it matches, and whether a note is asked any task.

    A note is asked tasks, and has a plan for each, if some arm needs its relevance: any such arm does in its place.
    """
    arms = {name: config.arms[name] for name in with_matched(config.arms, arm)}
    if arms[arm].attribution is not None:  # a run of its own, in which there is no other arm
        return {arm: arms[arm].model_copy(update={"attribution": None})}
    masked = masking_of(config) if arms[arm].masking is not None else {}
    if RELEVANCE in needs(masked) - needs({name: masked[name] for name in arms if name in masked}):
        asking = next(name for name, masking in masked.items() if RELEVANCE in needs({name: masking}))
        arms[asking] = Arm(masking=Masking())
    return arms
