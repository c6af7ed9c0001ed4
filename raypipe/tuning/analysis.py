"""How good each setting of a finished search is, which one is best, and how it compares with its neighbours.

A setting is the parameters of a trial without its seeds; trials that differ in seeds alone are runs of one setting.
Only trials that ran to their end count: those that a scheduler stopped had less training (unequal budgets).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raypipe.evaluation import uncertainty
from raypipe.evaluation.uncertainty import Estimate, PairedDifference, caveats_of
from raypipe.tuning.space import LAYER, METRICS
from raypipe.tuning.trial_tables import CONFIG, LABELS_ONLY, ModelFacts, Search

BOOTSTRAP = 2000
NEAREST = 4  # neighbours, where no setting is exactly one step away
Values = tuple[Any, ...]  # of the keys of a `Results`, in their order


def is_seed(key: str) -> bool:
    """Keys whose values are repetitions, not settings."""
    return key.rpartition(".")[2] == "seed"


@dataclass(frozen=True)
class Setting:
    """One setting of one model, with its runs."""

    values: Values
    estimate: Estimate
    per_task: dict[str, float]  # mean over runs
    trial_ids: tuple[str, ...]
    layer: int | None


@dataclass(frozen=True)
class Results:
    """The settings of one model, best first."""

    model: ModelFacts
    keys: tuple[str, ...]  # that vary, seeds left out
    settings: tuple[Setting, ...]
    labels_only: Estimate | None
    differences: tuple[PairedDifference, ...]  # best less each neighbour, and less labels only, in this order
    neighbours: tuple[Setting, ...]

    @property
    def best(self) -> Setting:
        """The setting with the highest mean. It was chosen for that mean, so the mean is too high an estimate."""
        return self.settings[0]

    @property
    def caveats(self) -> list[str]:
        """What the intervals of the best setting and of its differences lack, in words."""
        estimates = [self.best.estimate, *(difference.estimate for difference in self.differences)]
        return list(caveats_of(estimates).values())

    def name(self, values: Values) -> str:
        """ratio 0.15, layer 0.25."""
        return ", ".join(f"{short(key)} {show(value)}" for key, value in zip(self.keys, values, strict=True))

    @cached_property
    def levels(self) -> dict[str, list[Any]]:
        """The values of each key, in order."""
        return {key: ordered(s.values[i] for s in self.settings) for i, key in enumerate(self.keys)}


def results(search: Search, model: ModelFacts, keys: Sequence[str] | None = None) -> Results | None:
    """Everything about a model's settings; None if no trial has finished.

    `keys`: the parameters that make a setting (default: all that vary); trials that differ in others are pooled.
    """
    chosen = tuple(varying(search) if keys is None else keys)
    groups = _grouped(search, model, chosen)
    if not groups:
        return None
    # the repeats of a trial share its reconstruction: each trial is a seed
    number_of = _seed_numbers(groups.values(), [CONFIG + key for key in search.keys if is_seed(key)])
    of_trials = {
        _id(values): [(number_of[t["trial_id"]], search.runs(model.name, t["trial_id"])) for t in trials]
        for values, trials in groups.items()
    }
    if scorer := search.runs(model.name, LABELS_ONLY):
        of_trials[LABELS_ONLY] = [(0, scorer)]
    means = {values: float(np.mean([t[search.metric] for t in trials])) for values, trials in groups.items()}
    best = max(means, key=lambda values: means[values])
    near = neighbours(best, list(groups), [ordered(v[i] for v in groups) for i in range(len(chosen))])
    compared = uncertainty.compare_arms(
        {name: [run for _, runs in trials for run in runs] for name, trials in of_trials.items()},
        search.tasks,
        [(_id(best), _id(values)) for values in near] + ([(_id(best), LABELS_ONLY)] if scorer else []),
        measure=METRICS[search.metric],
        n_bootstrap=BOOTSTRAP,
        seeds={name: [n for n, runs in trials for _ in runs] for name, trials in of_trials.items()},
    )
    settings = {
        values: Setting(
            values,
            compared.arms[_id(values)],
            {task: e.value for task, e in compared.tasks[_id(values)].items()},
            tuple(t["trial_id"] for t in trials),
            trials[0]["layer"],
        )
        for values, trials in groups.items()
    }
    ranked = sorted(settings.values(), key=lambda s: -means[s.values])
    return Results(
        model,
        chosen,
        tuple(ranked),
        compared.arms.get(LABELS_ONLY),
        compared.differences,
        tuple(settings[values] for values in near),
    )


def varying(search: Search) -> list[str]:
    """Searched keys with more than one value, seeds left out."""
    return [k for k in search.keys if not is_seed(k) and len(set(search.trials[CONFIG + k].to_pylist())) > 1]


def axes(search: Search) -> tuple[str, ...]:
    """The one or two keys that a heat map is drawn over: masking ratio (down) and attribution layer (across) first."""
    keys = varying(search)
    first = [k for k in keys if k.endswith(".ratio")][:1] + [k for k in keys if k.endswith(LAYER)][:1]
    return tuple([*first, *(k for k in keys if k not in first)][:2])


def neighbours(best: Values, every: Sequence[Values], levels: Sequence[Sequence[Any]]) -> list[Values]:
    """Settings one step from the best in one key: the next number up or down, any other word; else the nearest."""
    others = [values for values in every if values != best]

    def away(values: Values) -> list[float]:
        return [_distance(a, b, of) for a, b, of in zip(best, values, levels, strict=True)]

    adjacent = [values for values in others if sorted(away(values)) == [0] * (len(best) - 1) + [1]]
    return adjacent or sorted(others, key=lambda values: sum(d**2 for d in away(values)))[:NEAREST]


def ordered(values: Iterable[Any]) -> list[Any]:
    """Distinct values: numbers in order, then words."""
    return sorted(set(values), key=lambda v: (1, 0.0, str(v)) if _is_word(v) else (0, v, ""))


def short(key: str) -> str:
    """A parameter's name: the last part of its dotted key."""
    return key.rpartition(".")[2]


def show(value: Any) -> str:
    """A parameter's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _grouped(search: Search, model: ModelFacts, keys: Sequence[str]) -> dict[Values, list[Mapping[str, Any]]]:
    groups: dict[Values, list[Mapping[str, Any]]] = defaultdict(list)
    for trial in search.of(model.name):
        groups[tuple(trial[CONFIG + key] for key in keys)].append(trial)
    return dict(groups)


def _seed_numbers(settings: Iterable[Sequence[Mapping[str, Any]]], keys: Sequence[str]) -> dict[str, int]:
    """By trial, a number that stands for the values of its seeds in every setting, so that like is paired with like.

    Trials of a setting that share them (other keys were pooled, or no seed was searched) are told apart by their order.
    """
    seed_of: dict[str, tuple[Any, ...]] = {}
    for trials in settings:
        n_with: Counter[tuple[Any, ...]] = Counter()
        for trial in trials:
            values = tuple(trial[key] for key in keys)
            seed_of[trial["trial_id"]] = (*values, n_with[values])
            n_with[values] += 1
    numbers = {seed: n for n, seed in enumerate(sorted(set(seed_of.values()), key=repr))}
    return {trial_id: numbers[seed] for trial_id, seed in seed_of.items()}


def _id(values: Values) -> str:
    return repr(values)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _distance(a: Any, b: Any, levels: Sequence[Any]) -> float:
    """Levels between two numbers; between two words 1."""
    if _is_word(a) or _is_word(b):
        return float(a != b)
    return abs(levels.index(a) - levels.index(b))
