"""Curves of the trainings, from the metrics that each leaves."""

from __future__ import annotations

import json
from pathlib import Path

from raypipe.findings.training_curves import MAX_POINTS, _curve
from raypipe.runs.folder import StepFolder


def left(folder: Path, n: int, dev_loss: float | None = None, **more: float) -> StepFolder:
    """A training of n steps, loss n - step; dev loss every second step."""
    step = StepFolder(folder, {}).open()
    lines = [{"step": i + 1, "steps": n, "loss": float(n - i), **more} for i in range(n)]
    for line in lines[1::2]:
        line |= {"dev_loss": line["loss"] + 1, "dev_macro_f1": 0.5}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    step.finish(dev_loss=dev_loss)
    return step


def test_loss_dev_loss_and_learning_rate_by_step(tmp_path: Path) -> None:
    curve = _curve("train/a", left(tmp_path / "x", 5, 9.0, learning_rate=0.1))
    assert curve is not None
    assert (curve.stage, curve.student) == ("train", "a")
    assert (curve.steps, curve.loss) == ((1, 2, 3, 4, 5), (5.0, 4.0, 3.0, 2.0, 1.0))
    assert curve.dev == ((2, 5.0), (4, 3.0), (5, 9.0))  # the last one is the manifest's
    assert curve.dev_f1 == ((2, 0.5), (4, 0.5))
    assert curve.learning_rate == (0.1,) * 5


def test_long_trainings_are_means_of_parts_and_older_ones_have_no_rate(tmp_path: Path) -> None:
    curve = _curve("pretrain", left(tmp_path / "x", 10 * MAX_POINTS))
    assert curve is not None
    assert len(curve.steps) == MAX_POINTS
    assert (curve.steps[0], curve.steps[-1]) == (10, 10 * MAX_POINTS)
    assert curve.loss[-1] == 5.5  # mean of 1 to 10
    assert curve.learning_rate == ()
    assert (curve.stage, curve.student) == ("pretrain", "")


def test_a_training_without_metrics_has_no_curve(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "x", {}).open()
    step.finish()
    assert _curve("pretrain", step) is None
