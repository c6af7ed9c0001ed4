"""A space and a model as one study: checked before anything starts, and the config of each of its trials."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from raypipe.attribution.layers import masking_layer, valid_at, valid_layers
from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE
from raypipe.runs.checking import of_settings
from raypipe.settings import yamlfile
from raypipe.settings.arms import masking_of, with_matched
from raypipe.settings.config import Arm, Config, Masking
from raypipe.settings.yamlfile import Document, did_you_mean
from raypipe.tuning import samplers
from raypipe.tuning.backbones import Backbone, backbones
from raypipe.tuning.space import LAYER, Space, load

COMBINATIONS = 256  # how many combinations of values are checked against the config before a study starts
# Config keys that change no trial
NOT_IN_RESULTS = {"runs", "resources", "tune", "tracking", "comparison", "faithfulness", "canaries"}


@dataclass(frozen=True)
class StudyPlan:
    """One study: a model, what varies, and the arm whose settings vary."""

    backbone: Backbone
    space: Space
    arm: str
    params: dict[str, Any]  # those of the space; values that are one layer in this model stand once

    @property
    def n_trials(self) -> int:
        """How many trials the study will have."""
        grids = [len(samplers.values(sampler)) for sampler in self.params.values() if samplers.is_grid(sampler)]
        return self.space.num_samples * math.prod(grids)

    @property
    def constants(self) -> dict[str, Any]:
        """Keys of the space that have one value in all trials."""
        return {key: value for key, value in self.params.items() if not samplers.is_sampler(value)}

    def config(self, values: Mapping[str, Any], name: str, runs: str) -> Config:
        """The resolved config of the run `<runs>/<name>`: one arm, scored on dev, layers as numbers."""
        config = self.backbone.config(values, self.space.path)
        attribution = config.arms[self.arm].attribution or config.attribution
        train = config.training_of(self.arm)
        changes = {
            "name": name,
            "runs": runs,
            "arms": _arms(config, self.arm),
            "train": train,
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
    """A resolved config with other values at dotted keys. The values are not validated again."""
    for dotted, value in changes.items():
        section, _, key = dotted.rpartition(".")
        if section:
            config = config.model_copy(update={section: getattr(config, section).model_copy(update={key: value})})
        else:
            config = config.model_copy(update={key: value})
    return config


def plans(space: Space, backbones: Sequence[Backbone]) -> list[StudyPlan]:
    """One study per model. Raises `InputError` with everything that is wrong with the space, for all models at once."""
    problems: dict[Problem, None] = {}
    out = []
    for backbone in backbones:
        before = len(problems)
        arm = _arm(space, backbone, problems)
        _check_values(space, backbone, problems)
        if len(problems) == before and arm is not None:
            out.append(StudyPlan(backbone, space, arm, _without_equal_layers(space, backbone)))
            problems.update(dict.fromkeys(_problems_together(out[-1])))
    if problems:
        raise InputError(list(problems))
    return out


def demand_few(plans: Sequence[StudyPlan]) -> None:
    """Raise `InputError` if a study has more trials than `tune.max_trials` allows: a few grids make a billion."""
    problems: dict[Problem, None] = {}
    for plan in plans:
        most = plan.backbone.config({}).tune.max_trials
        if plan.n_trials > most:
            what = (
                f"{plan.n_trials:,} trials, more than tune.max_trials allows ({most:,}): try fewer values, or raise it"
            )
            problems[Problem(plan.space.path, what)] = None
    if problems:
        raise InputError(list(problems))


def counts(path: Path, written: Document) -> tuple[tuple[str, str, int], ...]:
    """Model, arm and trials of each study of a space. Raises `InputError` with everything that is wrong with it."""
    space = load(path)
    models = yamlfile.validate(Config, written).tune.models or space.models
    return tuple(
        (study.backbone.name, study.arm, study.n_trials) for study in plans(space, backbones(written.value, models))
    )


def identity(config: Config) -> str:
    """A fingerprint of all keys of a trial's config on which its result may depend; a default is as good as no key."""
    return fingerprint(_keys(config))


def _keys(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=NOT_IN_RESULTS, exclude_defaults=True)


def _effective(config: Config) -> dict[str, Any]:
    """The keys of `identity` less profiles, which only fill in others: where all are given, a profile says nothing."""
    keys = _keys(config)
    for arm in keys.get("arms", {}).values():
        (arm.get("masking") or {}).pop("profile", None)
    return keys


def _where(space: Space, key: str) -> str:
    return f"{space.path}: PARAM_SPACE[{key!r}]"


def _arm(space: Space, backbone: Backbone, problems: dict[Problem, None]) -> str | None:
    """The arm that is searched: the one that ARM or the keys name; else the only one that masks, or masks by relevance.

    None if that leaves no arm, or several.
    """
    config = backbone.config({})
    named = sorted({key.split(".")[1] for key in space.params if key.startswith("arms.") and key.count(".") > 1})
    for name in [*named, *([space.arm] if space.arm else [])]:
        if name not in config.arms:
            what = f"no such arm; the config has {', '.join(config.arms)}{did_you_mean(name, config.arms)}"
            problems[Problem(f"{space.path}: arms.{name}", what)] = None
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


def _without_equal_layers(space: Space, backbone: Backbone) -> dict[str, Any]:
    """The space's parameters. Fractions of the depth may be one layer in a shallow model: a grid tries it once."""
    out = dict(space.params)
    for key, grid in space.params.items():
        if key.endswith(LAYER) and samplers.is_grid(grid):
            first: dict[Any, Any] = {}
            for value in samplers.values(grid):
                first.setdefault(round(value * backbone.depth) if isinstance(value, float) else value, value)
            out[key] = {samplers.GRID: list(first.values())}
    return out


def _problems_together(plan: StudyPlan) -> Iterator[Problem]:
    """Problems that no value has by itself: a layer that the method cannot read, a key that changes no trial."""
    every = {key: samplers.values(sampler) for key, sampler in plan.params.items()}
    # a key leaves when a value changes a trial
    without_effect = {key for key, values in every.items() if len(values) > 1}
    for values in _combinations(every):
        config = plan.config(values, "trial", "runs")
        layer, depth = config.attribution.layer, plan.backbone.depth
        if layer not in valid_layers(config.attribution, depth):
            key = next((key for key in values if key.endswith(LAYER)), LAYER)
            what = (
                f"layer {layer} (written as {values.get(key, layer)}) of {plan.backbone.name}, which has layers "
                f"0..{depth}: {valid_at(config.attribution, depth)}"
            )
            yield Problem(_where(plan.space, key), what)
        yield from (Problem(f"{plan.space.path}: {p.where}", p.what) for p in of_settings.problems(config))
        same = _effective(config)
        without_effect = {
            key
            for key in without_effect
            if all(_effective(plan.config({**values, key: other}, "trial", "runs")) == same for other in every[key])
        }
    for key in sorted(without_effect):
        yield Problem(_where(plan.space, key), f"changes nothing for {plan.arm}, the arm that is searched; remove it")


def _combinations(every: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """All combinations of values if they are few; else some in which each value occurs, and a seeded sample."""
    if math.prod(map(len, every.values())) <= COMBINATIONS:
        yield from (dict(zip(every, values, strict=True)) for values in product(*every.values()))
        return
    longest = max(map(len, every.values()))
    yield from ({key: values[i % len(values)] for key, values in every.items()} for i in range(longest))
    rng = random.Random(0)  # noqa: S311 (no secret)
    draws = iter(lambda: {key: rng.choice(values) for key, values in every.items()}, None)
    yield from islice(draws, COMBINATIONS)


def _arms(config: Config, arm: str) -> dict[str, Arm]:
    """The arms of a trial: the searched one, and those on which its masks depend.

    These are the arms whose ratio it copies. And if any arm of the whole run needs relevance, each note has a masking
    plan per task: then a trial has such an arm, too (which one makes no difference).
    """
    arms = {name: config.arms[name].model_copy(update={"train": None}) for name in with_matched(config.arms, arm)}
    if arms[arm].attribution is not None:  # a run of its own, in which there is no other arm
        return {arm: arms[arm].model_copy(update={"attribution": None})}
    masked = masking_of(config) if arms[arm].masking is not None else {}
    if RELEVANCE in needs(masked) - needs({name: masked[name] for name in arms if name in masked}):
        by_relevance = next(name for name, masking in masked.items() if RELEVANCE in needs({name: masking}))
        arms[by_relevance] = Arm(masking=Masking())
    return arms
