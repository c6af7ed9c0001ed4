"""Intervals and tests of a measure, and of its difference between two arms (docs/method.md, section 11.4).

An arm is a list of runs (training order, initialisation), each a `rows.PREDICTIONS` table over the same labelled notes.
A resample draws tasks, then groups (patients) within each task, and perturbs runs; all arms get the same draws. Tasks
on one set of notes are correlated, so a second variant draws the groups once for all tasks; the wider interval is
quoted. Runs may belong to seeds (one reconstruction, several fine-tunings): then seeds are perturbed, not their runs.
`caveats` name what an interval lacks: with a single run the noise of training, which can be larger than any difference
between methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from raypipe.evaluation.resampling import Measure, TaskCounts, count_tasks, group_weights, holm, sign_flip_p
from raypipe.notes.tasks import Task
from raypipe.words import F32, F64

Caveat = Literal["single_run", "single_seed", "few_runs", "few_seeds", "few_tasks", "too_few_tasks"]
MIN_RUNS, MIN_TASKS = 5, 10  # with fewer, a caveat is printed
SIGNIFICANT = 0.05  # of p, corrected for all declared differences
CAVEATS: dict[Caveat, str] = {
    "single_run": "one run only: the interval lacks run-to-run noise and is too narrow",
    "single_seed": "one seed only: the interval lacks the noise of subset, scorer and reconstruction",
    "few_runs": f"fewer than {MIN_RUNS} runs: run-to-run noise is poorly known",
    "few_seeds": f"fewer than {MIN_RUNS} seeds: the noise of subset, scorer and reconstruction is poorly known",
    "few_tasks": f"fewer than {MIN_TASKS} tasks: the bootstrap over tasks is unreliable",
    "too_few_tasks": "too few tasks for so many comparisons: even if all tasks agreed, no test could say so",
}


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and runs, in shares, with its 95 % interval."""

    value: float
    low: float
    high: float
    n_runs: int
    n_tasks: int
    caveats: tuple[Caveat, ...]  # what the interval lacks, keys of CAVEATS
    groups: Literal["within_tasks", "jointly"]  # how groups were drawn in the interval that is quoted, the wider one


@dataclass(frozen=True)
class PairedDifference:
    """Arm less reference, paired by task and note. Shares, not points."""

    arm: str
    reference: str
    estimate: Estimate  # n_runs: of the arm with fewer runs
    per_task: dict[str, float]  # mean over runs
    wins: int  # tasks on which the arm is better
    ties: int  # exactly equal
    losses: int
    p: float  # two-sided sign-flip permutation over tasks; it cannot see run-to-run noise
    p_holm: float  # the same, corrected for all comparisons declared in the call


@dataclass(frozen=True)
class ComparisonResult:
    """The estimates of all arms on one measure, and the declared differences."""

    measure: Measure
    arms: dict[str, Estimate]
    tasks: dict[str, dict[str, Estimate]]  # arm -> task id -> estimate (groups and runs resampled)
    differences: tuple[PairedDifference, ...]


def caveats_of(estimates: Iterable[Estimate]) -> dict[Caveat, str]:
    """What some of these intervals lack, with its sentence."""
    of_some = {caveat for estimate in estimates for caveat in estimate.caveats}
    return {caveat: sentence for caveat, sentence in CAVEATS.items() if caveat in of_some}


def compare_arms(
    arms: Mapping[str, Sequence[pa.Table]],
    tasks: Sequence[Task],
    pairs: Sequence[tuple[str, str]] = (),
    measure: Measure = "macro_f1",
    n_bootstrap: int = 2000,
    seed: int = 0,
    seeds: Mapping[str, Sequence[int]] | None = None,
) -> ComparisonResult:
    """Intervals of every arm and of the declared differences `pairs` = (arm, reference), on one measure.

    `seeds`: the seed that each run of an arm belongs to; None: each run is a seed of its own. Arms with the same seeds
    and runs are paired run by run. Raises ValueError if the arms were not scored on the same tasks, notes and labels,
    if a pair names an unknown arm, or if an arm has no runs.
    """
    missing = [name for pair in pairs for name in pair if name not in arms] + [n for n in arms if not arms[n]]
    if missing:
        raise ValueError(f"arms without runs: {', '.join(missing)}")
    draws = _draw(arms, tasks, measure, n_bootstrap, seed, seeds or {arm: range(len(arms[arm])) for arm in arms})
    contrasts = [(arm, reference, draws[arm].minus(draws[reference])) for arm, reference in pairs]
    p_values = [sign_flip_p(contrast.point_T, seed) for *_, contrast in contrasts]
    n_tasks = len(next(iter(draws.values())).task_ids)
    # the smallest possible p of the sign flips, times Holm's first factor
    can_be_significant = len(pairs) * 2.0 ** (1 - n_tasks) < SIGNIFICANT
    return ComparisonResult(
        measure=measure,
        arms={name: d.estimate(least=0.0) for name, d in draws.items()},
        tasks={name: d.task_estimates() for name, d in draws.items()},
        differences=tuple(
            _difference(*contrast, p, p_holm, can_be_significant)
            for contrast, p, p_holm in zip(contrasts, p_values, holm(p_values), strict=True)
        ),
    )


@dataclass(frozen=True)
class _Draws:
    """An arm, or the difference of two, under all B resamples."""

    task_ids: list[str]
    n_runs: int
    n_seeds: int
    point_T: F64  # the data as they are, mean over runs
    within_B: F64  # mean over drawn tasks, groups drawn within each task
    joint_B: F64  # the same, groups drawn once for all tasks
    task_BT: F64  # every task under the joint draws

    def minus(self, other: _Draws) -> _Draws:
        return _Draws(
            self.task_ids,
            min(self.n_runs, other.n_runs),
            min(self.n_seeds, other.n_seeds),
            self.point_T - other.point_T,
            self.within_B - other.within_B,
            self.joint_B - other.joint_B,
            self.task_BT - other.task_BT,
        )

    def estimate(self, least: float = -1.0) -> Estimate:
        within, joint = (np.nanpercentile(draws_B, [2.5, 97.5]).tolist() for draws_B in (self.within_B, self.joint_B))
        is_joint = joint[1] - joint[0] > within[1] - within[0]
        low, high = np.clip(joint if is_joint else within, least, 1.0).tolist()
        few_tasks: tuple[Caveat, ...] = ("few_tasks",) if len(self.task_ids) < MIN_TASKS else ()
        return Estimate(
            value=float(self.point_T.mean()),
            low=low,
            high=high,
            n_runs=self.n_runs,
            n_tasks=len(self.task_ids),
            caveats=(*_run_caveats(self.n_runs, self.n_seeds), *few_tasks),
            groups="jointly" if is_joint else "within_tasks",
        )

    def task_estimates(self) -> dict[str, Estimate]:
        low_T, high_T = np.clip(np.nanpercentile(self.task_BT, [2.5, 97.5], axis=0), 0.0, 1.0).tolist()
        columns = zip(self.task_ids, self.point_T.tolist(), low_T, high_T, strict=True)
        caveats = _run_caveats(self.n_runs, self.n_seeds)
        return {t: Estimate(v, low, high, self.n_runs, 1, caveats, "jointly") for t, v, low, high in columns}


def _run_caveats(n_runs: int, n_seeds: int) -> tuple[Caveat, ...]:
    if n_seeds == 1:
        return ("single_run",) if n_runs == 1 else ("single_seed",)
    if n_runs < MIN_RUNS:
        return ("few_runs",)
    return ("few_seeds",) if n_seeds < MIN_RUNS else ()


def _difference(
    arm: str, reference: str, draws: _Draws, p: float, p_holm: float, can_be_significant: bool
) -> PairedDifference:
    better, worse = draws.point_T > 1e-9, draws.point_T < -1e-9
    estimate = draws.estimate()
    if not can_be_significant:
        estimate = replace(estimate, caveats=(*estimate.caveats, "too_few_tasks"))
    return PairedDifference(
        arm=arm,
        reference=reference,
        estimate=estimate,
        per_task=dict(zip(draws.task_ids, draws.point_T.tolist(), strict=True)),
        wins=int(better.sum()),
        ties=int((~better & ~worse).sum()),
        losses=int(worse.sum()),
        p=p,
        p_holm=p_holm,
    )


def _draw(
    arms: Mapping[str, Sequence[pa.Table]],
    tasks: Sequence[Task],
    measure: Measure,
    n_bootstrap: int,
    seed: int,
    seeds: Mapping[str, Sequence[int]],
) -> dict[str, _Draws]:
    """Every arm under the same resamples."""
    counts, n_groups = count_tasks(arms, tasks, measure)
    if not counts:
        raise ValueError(f"{measure} is not defined on any task")
    rng = np.random.default_rng(seed)
    point_TS = np.concatenate([c.values(np.ones((1, len(c.group_G)), dtype=np.float32)) for c in counts])
    within_BS = _resample_within(counts, n_bootstrap, rng)
    joint_BS, task_BTS = _resample_jointly(counts, n_groups, n_bootstrap, rng)
    draws, first = {}, 0
    for name, runs in arms.items():
        mine = slice(first, first + len(runs))
        first = mine.stop
        weight_BR = seed_weights(n_bootstrap, seeds[name], seed)
        draws[name] = _Draws(
            [c.task_id for c in counts],
            len(runs),
            len(set(seeds[name])),
            point_TS[:, mine].mean(axis=1),
            np.sum(within_BS[:, mine] * weight_BR, axis=1),
            np.sum(joint_BS[:, mine] * weight_BR, axis=1),
            np.einsum("btr,br->bt", task_BTS[:, :, mine], weight_BR),
        )
    return draws


def seed_weights(n_bootstrap: int, seed_R: Sequence[int], seed: int) -> F64:
    """Weight of each run in each resample [B, R], around its share. Arms with as many seeds get the same draws.

    Seeds are perturbed, since their means carry the noise of the runs within; with one seed, the runs. The weights are
    normal with the variance that makes that of the mean the unbiased s^2 / n (multinomial draws of n would give
    (n - 1) / n of it), times Student's quantile over the normal one: with 3 seeds, 1.96 standard errors hold the truth
    81 times in a hundred, 4.30 hold it 95 times.
    """
    seeds = np.unique(seed_R)
    unit_R = np.asarray(seed_R) if len(seeds) > 1 else np.arange(len(seed_R))
    _, unit_R, size_U = np.unique(unit_R, return_inverse=True, return_counts=True)
    n = len(size_U)
    share_BU = np.full((n_bootstrap, n), 1 / n)
    if n > 1:
        from scipy import stats  # here, because it is slow to import

        z_BU = np.random.default_rng([seed, n]).standard_normal((n_bootstrap, n))
        widen = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
        share_BU += widen * (z_BU - z_BU.mean(axis=1, keepdims=True)) / math.sqrt(n * (n - 1))
    return np.asarray((share_BU / size_U)[:, unit_R])


def _resample_within(counts: list[TaskCounts], n_bootstrap: int, rng: np.random.Generator) -> F64:
    """Mean over drawn tasks [B, S]; a task that is drawn twice gets two draws of its groups."""
    task_BT = rng.integers(len(counts), size=(n_bootstrap, len(counts)))
    sum_BS, n_BS = (np.zeros((n_bootstrap, counts[0].n_systems)) for _ in range(2))
    for t, task in enumerate(counts):
        resample, _ = np.nonzero(task_BT == t)
        values = task.values(group_weights(rng, len(resample), len(task.group_G)))
        np.add.at(sum_BS, resample, np.nan_to_num(values))
        np.add.at(n_BS, resample, np.isfinite(values))
    return _ratio(sum_BS, n_BS)


def _resample_jointly(
    counts: list[TaskCounts], n_groups: int, n_bootstrap: int, rng: np.random.Generator
) -> tuple[F64, F64]:
    """Mean over drawn tasks [B, S], and every task [B, T, S], where all tasks see the same draw of groups."""
    weight_BG = group_weights(rng, n_bootstrap, n_groups)
    value_BTS = np.stack([task.values(weight_BG[:, task.group_G]) for task in counts], axis=1)
    times_BT1 = group_weights(rng, n_bootstrap, len(counts))[:, :, None]
    sum_BS = np.sum(np.nan_to_num(value_BTS) * times_BT1, axis=1)
    return _ratio(sum_BS, np.sum(np.isfinite(value_BTS) * times_BT1, axis=1)), value_BTS


def _ratio(total: F64, n: F32 | F64) -> F64:
    """Their quotient; nan, silently, where a resample has no task on which the measure is defined."""
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n)
