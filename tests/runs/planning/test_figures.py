"""Totals of a sample and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.runs.planning.figures import Interval, Memory


def test_a_total_that_was_read_whole_has_no_width() -> None:
    assert Interval.of_total([1, 2, 3], 3) == Interval(6.0, 6.0, 6.0)


def test_an_interval_holds_the_total_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(5, 0.6, size=5000)
    samples = [Interval.of_total(rng.choice(lengths, 200, replace=False).tolist(), 5000) for _ in range(400)]
    share = np.mean([of.low <= lengths.sum() <= of.high for of in samples])
    assert share == pytest.approx(0.95, abs=0.04)


def test_nothing_read_is_nothing() -> None:
    assert Interval.of_total([], 0).value == 0.0


def test_memory_is_the_sum_of_its_parts() -> None:
    assert Memory("train", {"weights": 1.0, "optimiser": 2.0}).total == 3.0
