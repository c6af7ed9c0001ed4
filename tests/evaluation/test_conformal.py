"""Prediction sets hold the true label as often as promised, whatever the model, and are no larger than they must be."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import betabinom

from raypipe import rows
from raypipe.evaluation.conformal import conformal, nonconformity, threshold
from raypipe.notes.tasks import Task

TASKS = [Task(f"t{i}", "multiclass", "?", ("a", "b", "c"), ("a", "b", "c")) for i in range(200)]


def predictions(task: Task, scores_NC: np.ndarray, gold_N: np.ndarray, start: int = 0) -> list[dict]:
    return [
        {
            "task_id": task.id,
            "note_id": f"n{start + i}",
            "label": task.options[gold_N[i]],
            "predicted": task.options[int(scores_NC[i].argmax())],
            "scores": scores_NC[i].tolist(),
        }
        for i in range(len(gold_N))
    ]


def exchangeable(rng: np.random.Generator, n_calibration: int, n: int, sharpness: float) -> tuple[pa.Table, pa.Table]:
    """200 independent tasks; scores that know the label more or less, and are not calibrated."""
    parts: tuple[list, list] = ([], [])
    for task in TASKS:
        gold_N = rng.choice(3, size=n_calibration + n, p=[0.6, 0.3, 0.1])
        scores_NC = rng.normal(size=(len(gold_N), 3)) + sharpness * np.eye(3)[gold_N]
        parts[0].extend(predictions(task, scores_NC[:n_calibration], gold_N[:n_calibration]))
        parts[1].extend(predictions(task, scores_NC[n_calibration:], gold_N[n_calibration:], n_calibration))
    return rows.table(parts[0], rows.PREDICTIONS), rows.table(parts[1], rows.PREDICTIONS)


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize(("alpha", "sharpness"), [(0.1, 1.5), (0.25, 0.0), (0.05, 3.0)])
def test_coverage_is_that_of_exchangeable_notes(score: str, alpha: float, sharpness: float) -> None:
    """Covered notes of a task are beta-binomial (Vovk 2012): the mean of 200 tasks must lie within 4 of its errors."""
    n_calibration, n = 60, 40
    sets = conformal(*exchangeable(np.random.default_rng(1), n_calibration, n, sharpness), TASKS, alpha, score)
    k = math.ceil((n_calibration + 1) * (1 - alpha) - 1e-9)
    law = betabinom(n, k, n_calibration + 1 - k)
    error = law.std() / n / np.sqrt(len(TASKS))
    assert 1 - alpha <= law.mean() / n <= 1 - alpha + 1 / (n_calibration + 1)
    assert sets.coverage == pytest.approx(law.mean() / n, abs=4 * error)
    assert np.std([t.coverage for t in sets.tasks]) == pytest.approx(law.std() / n, rel=0.25)
    assert all(t.n_calibration == n_calibration and t.n == n and t.options == 3 for t in sets.tasks)


def test_a_better_model_has_smaller_sets() -> None:
    rng = np.random.default_rng(2)
    sizes = [conformal(*exchangeable(rng, 60, 40, sharpness), TASKS, 0.1).size for sharpness in (0.0, 1.5, 6.0)]
    assert sizes[0] > 2 > sizes[1] > 1.1 > sizes[2] > 0.85


def test_what_is_not_exchangeable_is_not_covered() -> None:
    """The test of the test: calibrated on notes that the model knows, evaluated on notes that it does not."""
    rng = np.random.default_rng(3)
    calibration, _ = exchangeable(rng, 60, 1, 4.0)
    _, evaluated = exchangeable(rng, 60, 40, 0.0)
    assert conformal(calibration, evaluated, TASKS, 0.1).coverage < 0.75


def test_threshold_is_the_right_order_statistic() -> None:
    score_N = np.asarray([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.4, 0.6, 0.8])
    assert threshold(score_N, 0.1) == 0.9  # the 9th of 9
    assert threshold(score_N, 0.5) == 0.5  # the 5th
    assert threshold(score_N[:8], 0.1) == math.inf  # the 9th of 8
    assert threshold(np.zeros(0), 0.1) == math.inf


def test_too_few_calibration_notes_promise_nothing() -> None:
    calibration, evaluated = exchangeable(np.random.default_rng(4), 5, 10, 2.0)
    sets = conformal(calibration, evaluated, TASKS, 0.1)
    assert (sets.coverage, sets.size, sets.singletons) == (1.0, 3.0, 0.0)
    assert conformal(calibration.slice(0, 0), evaluated, TASKS, 0.1) is None


def test_scores_by_hand() -> None:
    probability_NC = np.asarray([[0.2, 0.7, 0.1]])
    assert nonconformity(probability_NC, "lac", np.zeros(1))[0] == pytest.approx([0.8, 0.3, 0.9])
    assert nonconformity(probability_NC, "aps", np.zeros(1))[0] == pytest.approx([0.7, 0.0, 0.9])
    assert nonconformity(probability_NC, "aps", np.full(1, 0.5))[0] == pytest.approx([0.8, 0.35, 0.95])


def test_a_note_without_scores_keeps_all_options() -> None:
    rng = np.random.default_rng(5)
    calibration, evaluated = exchangeable(rng, 60, 40, 6.0)
    blank = [{**row, "predicted": None, "scores": None} for row in evaluated.to_pylist()]
    sets = conformal(calibration, rows.table(blank, rows.PREDICTIONS), TASKS, 0.1)
    assert (sets.coverage, sets.size) == (1.0, 3.0)
    mute = [
        {**row, "predicted": None, "scores": None} if i % 5 == 0 else row
        for i, row in enumerate(calibration.to_pylist())
    ]
    sets = conformal(rows.table(mute, rows.PREDICTIONS), evaluated, TASKS, 0.1)
    assert sets.size == 3.0  # more calibration notes than alpha cannot be answered: no finite threshold is safe
