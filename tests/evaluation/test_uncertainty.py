"""Intervals and tests: against direct recomputation, against scipy, and by simulation of what they claim."""

import time

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import permutation_test

from raypipe import rows
from raypipe.evaluation import resampling, uncertainty
from raypipe.evaluation.metrics import evaluate
from raypipe.evaluation.resampling import holm, sign_flip_p
from raypipe.evaluation.uncertainty import compare_arms
from raypipe.notes.tasks import Task

KIND = Task("kind", "multiclass", "kind", ("a", "b", "c"), ("a", "b", "c"))


def binary(n):
    return [Task(f"t{i:02d}", "binary", "q", ("yes", "no"), ("sì", "no")) for i in range(n)]


def one_run(tasks, gold_TN, skill_T, rng, groups=None):
    """Predictions with a margin of mean `skill` in the right direction and unit noise."""
    n_notes = gold_TN.shape[1]
    margin_TN = np.where(gold_TN, 1, -1) * np.asarray(skill_T)[:, None] + rng.normal(size=gold_TN.shape)
    columns = {
        "task_id": np.repeat([t.id for t in tasks], n_notes),
        "note_id": [f"n{i:04d}" for i in range(n_notes)] * len(tasks),
        "group_id": (groups or [f"g{i:04d}" for i in range(n_notes)]) * len(tasks),
        "label": np.where(gold_TN, "yes", "no").ravel(),
        "predicted": np.where(margin_TN > 0, "yes", "no").ravel(),
        "scores": np.stack([margin_TN.ravel(), np.zeros(margin_TN.size)], axis=1).tolist(),
    }
    return pa.Table.from_pydict(columns, schema=rows.PREDICTIONS)


def multiclass_run(rng, n=40):
    gold, predicted = rng.choice(KIND.options, n), rng.choice(KIND.options, n)
    scores = rng.normal(size=(n, 3)).round(1).tolist()
    return rows.table(
        [
            {
                "task_id": "kind",
                "note_id": f"n{i:04d}",
                "group_id": f"g{i // 3}",
                "label": str(gold[i]),
                "predicted": str(predicted[i]),
                "scores": scores[i],
            }
            for i in range(n)
        ],
        rows.PREDICTIONS,
    )


def repeated(table, weight_of):
    """The table with each group's rows repeated, as a resample means it."""
    out = []
    for row in table.to_pylist():
        out += [{**row, "note_id": f"{row['note_id']}-{i}"} for i in range(int(weight_of[row["group_id"]]))]
    return rows.table(out, rows.PREDICTIONS)


@pytest.mark.parametrize("measure", ["macro_f1", "auc"])
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_weighted_counts_equal_evaluation_of_repeated_rows(measure, kind):
    rng = np.random.default_rng(0)
    if kind == "binary":
        tasks = binary(1)
        gold = np.arange(40)[None, :] < 3  # all positives in one group: some resamples have none
        runs = [one_run(tasks, gold, [0.5], rng, [f"g{i // 3}" for i in range(40)]) for _ in range(2)]
    else:
        tasks, table = [KIND], multiclass_run(rng)
        order = rng.permutation(40)  # a second system: the same gold labels, other predictions
        shuffled = {"predicted": table["predicted"].take(order), "scores": table["scores"].take(order)}
        runs = [table, pa.table([shuffled.get(n, table[n]) for n in table.schema.names], schema=table.schema)]
    (counts,), n_groups = resampling.count_tasks({"x": runs}, tasks, measure)
    weight_BG = resampling.group_weights(rng, 8, n_groups)
    names = list(dict.fromkeys(runs[0]["group_id"].to_pylist()))  # notes are sorted
    for weight_G, value_S in zip(weight_BG, counts.values(weight_BG), strict=True):
        weight_of = dict(zip(names, weight_G, strict=True))
        expected = [getattr(evaluate(repeated(run, weight_of), tasks), measure) for run in runs]
        assert value_S == pytest.approx([np.nan if e is None else e for e in expected], abs=1e-6, nan_ok=True)
    assert kind == "multiclass" or (weight_BG[:, 0] == 0).any()


@pytest.mark.parametrize("measure", ["macro_f1", "auc"])
def test_values_are_the_means_over_tasks_and_runs(measure):
    rng, tasks = np.random.default_rng(1), binary(3)
    gold = rng.random((3, 50)) < 0.4
    arms = {"a": [one_run(tasks, gold, [0.2] * 3, rng) for _ in range(2)], "b": [one_run(tasks, gold, [1] * 3, rng)]}
    result = compare_arms(arms, tasks, [("b", "a")], measure, n_bootstrap=100)
    mean = {name: np.mean([getattr(evaluate(t, tasks), measure) for t in runs]) for name, runs in arms.items()}
    assert {name: e.value for name, e in result.arms.items()} == pytest.approx(mean)
    (difference,) = result.differences
    assert difference.estimate.value == pytest.approx(mean["b"] - mean["a"])
    assert np.mean(list(difference.per_task.values())) == pytest.approx(mean["b"] - mean["a"])
    assert (difference.wins, difference.ties, difference.losses) == (3, 0, 0)
    assert difference.p == pytest.approx(2 / 8)  # the smallest p of 3 tasks
    assert result.tasks["a"]["t01"].low < result.tasks["a"]["t01"].value < result.tasks["a"]["t01"].high


def simulate(rng, n_runs, task_sd, run_sd, n_tasks=12, n_notes=60):
    """Two arms of equal mean: their true difference is 0. Runs move all tasks of an arm together, as training does."""
    tasks, gold = binary(n_tasks), rng.random((n_tasks, n_notes)) < 0.5
    arms = {}
    for name in ("a", "b"):
        mean_T = 0.5 + task_sd * rng.normal(size=n_tasks)
        arms[name] = [one_run(tasks, gold, mean_T + run_sd * rng.normal(), rng) for _ in range(n_runs)]
    return compare_arms(arms, tasks, [("a", "b")], n_bootstrap=200).differences[0].estimate


def simulate_seeds(rng, n_seeds, n_runs, seed_sd, run_sd, n_tasks=12, n_notes=60):
    """Two arms without a difference, as a comparison makes them: runs within seeds, noise of both kinds."""
    tasks, gold = binary(n_tasks), rng.random((n_tasks, n_notes)) < 0.5
    arms, seeds = {"a": [], "b": []}, np.repeat(range(n_seeds), n_runs)
    for runs in arms.values():
        shift_S = seed_sd * rng.normal(size=n_seeds)
        runs += [one_run(tasks, gold, [0.7 + shift_S[s] + run_sd * rng.normal()] * n_tasks, rng) for s in seeds]
    compared = compare_arms(arms, tasks, [("a", "b")], n_bootstrap=200, seeds={"a": seeds, "b": seeds})
    return compared.differences[0].estimate


def test_interval_covers_few_seeds():
    """Three seeds of two runs: 1.96 standard errors would hold the truth about 80 times in a hundred."""
    rng = np.random.default_rng(9)
    found = [simulate_seeds(rng, 3, 2, seed_sd=0.5, run_sd=0.2) for _ in range(60)]
    assert np.mean([e.low <= 0 <= e.high for e in found]) >= 0.9


def coverage(n, **how):
    rng = np.random.default_rng(7)
    return np.mean([e.low <= 0 <= e.high for e in (simulate(rng, **how) for _ in range(n))])


def test_interval_covers_tasks_notes_and_runs():
    assert coverage(80, n_runs=6, task_sd=0.15, run_sd=0.15) >= 0.90


def test_interval_is_not_needlessly_wide():
    """Drawing patients on top of tasks counts their noise twice; more than that would be a defect."""
    rng = np.random.default_rng(3)
    estimates = [simulate(rng, n_runs=6, task_sd=0.2, run_sd=0.1) for _ in range(40)]
    half_width = np.mean([e.high - e.low for e in estimates]) / 2
    assert half_width < 2 * 1.96 * np.std([e.value for e in estimates])


def test_a_single_run_is_overconfident_and_says_so():
    """With one run an interval cannot cover the noise of training."""
    assert coverage(40, n_runs=1, task_sd=0.0, run_sd=0.4) < 0.7
    estimate = simulate(np.random.default_rng(0), n_runs=1, task_sd=0.0, run_sd=0.4)
    assert estimate.caveats == ("single_run",)
    assert "too narrow" in uncertainty.CAVEATS[estimate.caveats[0]]


@pytest.mark.parametrize(
    ("n_runs", "n_tasks", "caveats"), [(4, 10, ("few_runs",)), (5, 10, ()), (1, 9, ("single_run", "few_tasks"))]
)
def test_caveats(n_runs, n_tasks, caveats):
    estimate = simulate(np.random.default_rng(0), n_runs, 0.1, 0.1, n_tasks, n_notes=20)
    assert estimate.caveats == caveats
    assert (estimate.n_runs, estimate.n_tasks) == (n_runs, n_tasks)


@pytest.mark.parametrize("n_runs", [2, 3, 6])
def testseed_weights_have_the_variance_of_a_mean(n_runs):
    value_R = np.random.default_rng(0).normal(size=n_runs)
    means = uncertainty.seed_weights(40_000, range(n_runs), seed=0) @ value_R
    widen = {2: 12.706, 3: 4.303, 6: 2.571}[n_runs] / 1.96  # Student's quantiles
    assert means.mean() == pytest.approx(value_R.mean(), abs=0.05)
    assert means.var() == pytest.approx(widen**2 * value_R.var(ddof=1) / n_runs, rel=0.05)


def testseed_weights_know_seeds():
    weight_BR = uncertainty.seed_weights(1000, [4, 4, 4, 7, 7, 9], seed=0)
    np.testing.assert_allclose(weight_BR.sum(axis=1), 1)
    np.testing.assert_allclose(weight_BR[:, [0, 0, 3]], weight_BR[:, [1, 2, 4]])  # runs of a seed move together
    zero_shot_BR = uncertainty.seed_weights(1000, [4, 7, 9], seed=0)  # one run per seed: paired all the same
    np.testing.assert_allclose(zero_shot_BR, weight_BR[:, [0, 3, 5]] * [3, 2, 1])
    assert (uncertainty.seed_weights(10, [2, 2], seed=0).std(axis=0) > 0).all()  # one seed: its runs


def test_equal_systems_differ_by_nothing_because_tasks_groups_and_runs_are_paired():
    rng, tasks = np.random.default_rng(4), binary(12)
    gold = rng.random((12, 80)) < 0.3
    a = [one_run(tasks, gold, np.linspace(0, 1.5, 12) + shift, rng) for shift in (0, 0.5, 1)]
    result = compare_arms({"a": a, "same": a}, tasks, [("same", "a")], n_bootstrap=200)
    (difference,) = result.differences
    assert (difference.estimate.low, difference.estimate.high, difference.ties, difference.p) == (0, 0, 12, 1)
    assert result.arms["a"].high - result.arms["a"].low > 0.05


def test_correlated_tasks_quote_the_joint_interval():
    """Twelve copies of one task hold no more patients than one: drawing within each task would hide that."""
    rng, tasks = np.random.default_rng(5), binary(12)
    gold = np.tile(rng.random((1, 60)) < 0.4, (12, 1))
    single = one_run(tasks[:1], gold[:1], [0.5], rng)
    copies = pa.concat_tables(
        single.set_column(0, "task_id", pa.array([t.id] * 60, pa.string())).cast(rows.PREDICTIONS) for t in tasks
    )
    many, one = (compare_arms({"a": [x]}, tasks).arms["a"] for x in (copies, single))
    assert many.groups == "jointly"
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.15)


@pytest.mark.parametrize("n_tasks", [5, 12])
def test_permutation_agrees_with_scipy(n_tasks):
    for seed in range(5):
        difference = np.random.default_rng(seed).normal(0.3, 1, size=n_tasks)
        expected = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=2**n_tasks)
        assert sign_flip_p(difference) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n_tasks", [9, 30])
def test_permutation_p_is_uniform_without_effect(n_tasks):
    rng = np.random.default_rng(11)
    p = np.asarray([sign_flip_p(rng.standard_t(3, size=n_tasks)) for _ in range(500)])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.06)
    assert np.mean([sign_flip_p(rng.normal(1, 1, size=n_tasks)) < 0.05 for _ in range(50)]) > 0.6


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_covers_the_declared_comparisons_only():
    rng, tasks = np.random.default_rng(6), binary(10)
    gold = rng.random((10, 60)) < 0.4
    arms = {name: [one_run(tasks, gold, [s] * 10, rng)] for name, s in (("a", 0.2), ("b", 1.0), ("c", 0.3))}
    alone = compare_arms(arms, tasks, [("b", "a")], n_bootstrap=100).differences[0]
    both = compare_arms(arms, tasks, [("b", "a"), ("c", "a")], n_bootstrap=100).differences[0]
    assert alone.p_holm == alone.p == both.p
    assert both.p_holm == pytest.approx(2 * both.p)


@pytest.mark.parametrize(("n_tasks", "n_pairs", "can_tell"), [(5, 1, False), (6, 1, True), (6, 2, False), (9, 9, True)])
def test_says_where_no_test_could_reject(n_tasks, n_pairs, can_tell):
    rng = np.random.default_rng(0)
    tasks = binary(n_tasks)
    gold = rng.integers(0, 2, (n_tasks, 40))
    tables = {
        "a": [one_run(tasks, gold, np.full(n_tasks, 0.2), rng)],
        "b": [one_run(tasks, gold, np.ones(n_tasks), rng)],
    }
    found = compare_arms(tables, tasks, [("b", "a")] * n_pairs, n_bootstrap=100).differences
    assert {d.wins for d in found} == {n_tasks}
    assert {"too_few_tasks" not in d.estimate.caveats for d in found} == {can_tell}
    assert {d.p_holm < 0.05 for d in found} == {can_tell}


def test_refuses_what_cannot_be_paired():
    rng, tasks = np.random.default_rng(0), binary(2)
    gold = rng.random((2, 20)) < 0.5
    a, b = one_run(tasks, gold, [1, 1], rng), one_run(tasks, ~gold, [1, 1], rng)
    with pytest.raises(ValueError, match="nothing can be paired"):
        compare_arms({"a": [a], "b": [b]}, tasks)
    with pytest.raises(ValueError, match="nothing can be paired"):
        compare_arms({"a": [a], "b": [a.slice(0, 39)]}, tasks)
    with pytest.raises(ValueError, match="arms without runs: typo"):
        compare_arms({"a": [a]}, tasks, [("a", "typo")])
    with pytest.raises(ValueError, match="auc is not defined"):
        compare_arms({"a": [one_run(tasks, gold | True, [1, 1], rng)]}, tasks, measure="auc")


def test_same_seed_same_interval():
    rng, tasks = np.random.default_rng(0), binary(3)
    arms = {"a": [one_run(tasks, rng.random((3, 30)) < 0.5, [1] * 3, rng)]}
    assert compare_arms(arms, tasks, n_bootstrap=100) == compare_arms(arms, tasks, n_bootstrap=100)
    assert compare_arms(arms, tasks, n_bootstrap=100) != compare_arms(arms, tasks, n_bootstrap=100, seed=1)


def test_fast_enough():
    rng, tasks = np.random.default_rng(0), binary(12)
    gold = rng.random((12, 400)) < 0.2
    arms = {name: [one_run(tasks, gold, [0.5] * 12, rng)] for name in ("a", "b")}
    started = time.process_time()
    compare_arms(arms, tasks, [("a", "b")], n_bootstrap=2000)
    assert time.process_time() - started < 3
