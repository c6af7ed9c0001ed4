"""Is the order of settings the same over tasks and models, and how much does each parameter matter?

Kendall's W is 1 where all tasks rank the settings alike, and 1 / n_tasks on average where each ranks them at random;
its p is Friedman's. The share of variance of a parameter is eta squared of its main effect: the spread of the means of
its values over the spread of all trials. It rises by chance, too: a parameter that does nothing has (values - 1) /
(trials - 1) on average. What no main effect explains is interaction and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from raypipe.tuning.analysis import Results
from raypipe.tuning.trial_tables import CONFIG, Search

BINS = 4  # of a number with more values than this times two: quarters of the trials


@dataclass(frozen=True)
class Effect:
    """How much of the variance one parameter explains."""

    key: str
    share: float  # of the variance of the metric over trials
    by_chance: float  # of a parameter without effect
    n_levels: int
    n_trials: int


@dataclass(frozen=True)
class RankAgreement:
    """Rank agreement of settings. `p`: of the null that the rankings are unrelated; small says they agree."""

    between: str
    value: float
    p: float
    n_settings: int
    n_rankings: int


def effects(search: Search, model: str) -> list[Effect]:
    """Main effect of each searched parameter (seeds too), largest first."""
    trials = search.of(model)
    y = np.asarray([trial[search.metric] for trial in trials])
    total = float(np.sum((y - y.mean()) ** 2)) if len(y) else 0.0
    out = []
    for name in search.keys:
        level = _levels([trial[CONFIG + name] for trial in trials])
        n_levels = len(set(level.tolist()))
        if n_levels < 2 or n_levels >= len(y) or total == 0:
            continue
        groups = [y[level == n] for n in set(level.tolist())]
        between = sum(len(group) * float(group.mean() - y.mean()) ** 2 for group in groups)
        out.append(Effect(name, between / total, (n_levels - 1) / (len(y) - 1), n_levels, len(y)))
    return sorted(out, key=lambda effect: -effect.share)


def over_tasks(results: Results) -> RankAgreement | None:
    """Kendall's W of the tasks' rankings of one model's settings; needs 2 tasks and 3 settings."""
    tasks = list(results.best.per_task)
    value_TS = np.asarray([[s.per_task[task] for s in results.settings] for task in tasks])
    n_tasks, n_settings = value_TS.shape
    if n_tasks < 2 or n_settings < 3 or np.ptp(value_TS, axis=1).max() == 0:
        return None
    friedman = stats.friedmanchisquare(*value_TS.T)  # corrected for ties
    w = float(friedman.statistic) / (n_tasks * (n_settings - 1))
    return RankAgreement(f"tasks of {results.model.name}", w, float(friedman.pvalue), n_settings, n_tasks)


def between_models(every: Sequence[Results]) -> list[RankAgreement]:
    """Spearman's rank correlation of the settings that two models share; layers are compared as fractions of depth."""
    out = []
    for a, b in combinations(every, 2):
        of_b = {s.values: s.estimate.value for s in b.settings}
        pairs = [(s.estimate.value, of_b[s.values]) for s in a.settings if s.values in of_b]
        if len(pairs) >= 3 and all(len({pair[i] for pair in pairs}) > 1 for i in (0, 1)):
            rho, p = stats.spearmanr(*zip(*pairs, strict=True))
            out.append(RankAgreement(f"{a.model.name} and {b.model.name}", float(rho), float(p), len(pairs), 2))
    return out


def _levels(values: Sequence[object]) -> np.ndarray:
    """Levels as numbers from 0; a number with many values is cut into quarters of the trials."""
    names, level = np.unique([str(value) for value in values], return_inverse=True)
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(names) <= 2 * BINS or len(numbers) < len(values):
        return np.asarray(level)
    cuts = np.quantile(numbers, np.arange(1, BINS) / BINS)
    return np.asarray(np.searchsorted(cuts, numbers, side="left"))
