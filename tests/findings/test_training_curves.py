"""Curves of the trainings, from the metrics that each leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.findings.training_curves import MAX_POINTS, _curve, undone
from raypipe.runs.folder import StepFolder
from raypipe.runs.run import Run
from tests.small_run import settings


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


def test_students_that_lost_what_labels_teach_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arms = {
        "sft": {},
        "cpt": {"masking": {"strategy": "cpt"}},
        "x": {"masking": {"ratio": 0.2}},
        "start": {"start": "random"},
    }
    losses = ({"scorer": 0.1, "cpt": 0.1, "x": 0.2, "start": 9.0}, {"scorer": 0.3, "cpt": 0.33, "x": 0.3, "start": 9.0})
    cells = []
    for number, of_cell in enumerate(losses):
        cells.append(Run(settings(tmp_path, name=f"s{number}", arms=arms)))
        steps = {f"finetune/{who}": left(tmp_path / f"{number}{who}", 2, loss) for who, loss in of_cell.items()}
        monkeypatch.setattr(cells[-1], "step", steps.__getitem__)
    what = "x 0.250, sft 0.200: a lower train.learning_rate may keep what the decoder knew"
    assert undone(cells, "sft") == {"dev loss after learning from notes": what}
    assert undone(cells[1:], "sft") == {}
    assert undone(cells, "x") == {}
