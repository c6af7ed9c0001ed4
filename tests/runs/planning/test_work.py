"""The arithmetic of steps, and that none of the job is without it."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.runs.planning import work
from raypipe.runs.steps import STEPS
from raypipe.settings.config import Training
from raypipe.training import examples, schedule
from raypipe.training.examples import Examples
from raypipe.training.throughput import Work, work_of


def _rows(n: int) -> Examples:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 40, n)
    made = [{"input_ids": [1] * k, "loss_weight": [0.0, *[1.0] * (k - 1)], "branch": [0] * k} for k in lengths.tolist()]
    return examples.from_rows(made)


def test_every_step_of_the_job_can_be_planned() -> None:
    on_request = {step.name for step in STEPS if step.in_job is False}
    assert {step.name for step in STEPS} - on_request <= work.WORK.keys()
    assert work.WORK.keys() <= {step.name for step in STEPS}


@pytest.mark.parametrize("training", [Training(epochs=2, batch_rows=8), Training(max_steps=3, batch_rows=8)])
def test_rows_that_were_all_read_are_scheduled_as_the_loop_does(training: Training) -> None:
    rows = _rows(50)
    order = schedule.steps(rows.length, rows.draw, training)
    learned = sum((work_of(rows, batch) for batch in order), Work())
    assert work.learning(rows, 50, training) == (len(order), sum(map(len, order)), learned)


def test_more_rows_are_more_of_the_same() -> None:
    rows, training = _rows(50), Training(epochs=1, batch_rows=10)
    assert work.learning(rows, 5000, training) == (
        500,
        5000,
        Work(100 * int(rows.length.sum()), 100 * int((rows.length - 1).sum()), 100 * int((rows.length**2).sum())),
    )


def test_very_many_rows_are_not_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, training = _rows(50), Training(epochs=1, batch_rows=10)
    whole = work.learning(rows, 4000, training)
    monkeypatch.setattr(work, "ROWS", 400)
    assert work.learning(rows, 4000, training) == whole
    limited = work.learning(rows, 4000, training.model_copy(update={"max_steps": 7}))
    assert limited[:2] == (7, 70)


def test_no_rows_are_no_work() -> None:
    assert work.learning(_rows(1), 0, Training())[2] == Work()
