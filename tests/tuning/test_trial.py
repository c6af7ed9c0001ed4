"""The record of a trial: done once, and failed without any text of a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.evaluation.metrics import Metrics
from raypipe.tuning import trial
from raypipe.tuning.space import Space
from tests.tuning.demo import RATIO, demo_context, record_of


def test_a_trial_is_named_by_what_it_says(tmp_path: Path) -> None:
    context = demo_context(tmp_path)
    assert context.settings({RATIO: 0.1}).name == context.settings({RATIO: 0.1}).name
    assert context.settings({RATIO: 0.1}).name != context.settings({RATIO: 0.2}).name
    assert context.settings({}).name == context.settings({RATIO: 0.15}).name, "what the config says anyway"
    assert context.settings({RATIO: 0.1}).resources.ray is False


def test_a_finished_trial_is_told_again_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, runs, reports = demo_context(tmp_path), [], []
    score = {"value": 0.6, "low": 0.5, "high": 0.7, "n_runs": 1, "n_tasks": 12}

    def work(*_: Any) -> dict[str, Any]:
        runs.append(1)
        return {"status": "finished", "dev_macro_f1": score, "seconds": 3.0, "curve": [[1.0, 0.6]]}

    monkeypatch.setattr(trial, "_run", work)
    for _ in range(2):
        trial.run(context, None, {RATIO: 0.1}, reports.append)  # type: ignore[arg-type]
    assert len(runs) == 1
    assert reports[0] == reports[1]
    assert reports[0]["dev_macro_f1"] == 0.6
    assert reports[0]["is_final"]


def test_a_finished_trial_that_was_killed_while_it_cleared_up_leaves_no_rows(tmp_path: Path) -> None:
    context = demo_context(tmp_path)
    folder = context.trial_folder({RATIO: 0.1})
    score = {"value": 0.6, "low": 0.5, "high": 0.7, "n_runs": 1, "n_tasks": 12}
    trial.write(folder, {"status": "finished", "dev_macro_f1": score, "seconds": 3.0, "curve": []})
    (folder / "train/rows/data").mkdir(parents=True)
    (folder / "train/rows/data/part.parquet").touch()
    trial.run(context, None, {RATIO: 0.1}, lambda record: None)  # type: ignore[arg-type]
    assert [path.name for path in (folder / "train/rows").iterdir()] == []


@pytest.mark.parametrize("auc", [None, float("nan")])
def test_a_trial_that_cannot_be_ranked_fails_alone(auc: float | None) -> None:
    scores = Metrics(0.5, 0.5, auc, None, None, 0.5, ())
    assert trial._value([scores, scores], Space("x.py", {})) == 0.5
    with pytest.raises(InputError, match="dev_auc: is no number"):
        trial._value([scores, scores], Space("x.py", {}, metric="dev_auc"))


def test_a_failure_leaves_no_message_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may quote the note it choked on; what Tune pickles and logs is ours, without a cause or context."""
    context, secret = demo_context(tmp_path), "Paziente con dispnea"

    def work(*_: Any) -> dict[str, Any]:
        raise ValueError(secret)

    monkeypatch.setattr(trial, "_run", work)
    for attempt in (1, 2):
        with pytest.raises(trial.TrialError) as failed:
            trial.run(context, None, {RATIO: 0.1}, lambda _: None)  # type: ignore[arg-type]
        assert secret not in str(failed.value)
        assert failed.value.__cause__ is None
        assert failed.value.__context__ is None
        record = record_of(context, {RATIO: 0.1})
        assert (record["status"], record["attempts"]) == ("failed", attempt)
        assert record["error"].startswith("ValueError at")
        assert secret not in json.dumps(record)
