"""What becomes of a trial's record: done once, failed without any text of a note, stopped, or dead with its worker."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe import configfile
from raypipe.errors import InputError
from raypipe.tuning import search, studies, trial
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import Plan, plans
from raypipe.tuning.space import Space
from raypipe.tuning.trial import Job

DEMO = Path(__file__).parents[2] / "jobs/configs/demo.yaml"
RATIO = "arms.decselfmask.masking.ratio"


def _plan(tmp_path: Path, ratios: list[float], *overrides: str) -> Plan:
    written = configfile.written(DEMO, [f"runs={tmp_path}", *overrides]).value
    (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": ratios}}), backbones(written, []))
    return plan


def _job(tmp_path: Path) -> Job:
    return search.job_of(_plan(tmp_path, [0.1, 0.2]), tmp_path / "study")


def _said(job: Job, values: dict[str, Any]) -> dict[str, Any]:
    return trial.read(job.trials / job.settings(values).name)


def test_a_trial_is_named_by_what_it_says(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert job.settings({RATIO: 0.1}).name == job.settings({RATIO: 0.1}).name
    assert job.settings({RATIO: 0.1}).name != job.settings({RATIO: 0.2}).name
    assert job.settings({}).name == job.settings({RATIO: 0.15}).name, "what the config says anyway"
    assert job.settings({RATIO: 0.1}).resources.ray is False


def test_a_finished_trial_is_told_again_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, runs, reports = _job(tmp_path), [], []
    found = {"value": 0.6, "low": 0.5, "high": 0.7, "n_runs": 1, "n_tasks": 12}

    def work(*_: Any) -> dict[str, Any]:
        runs.append(1)
        return {"status": "finished", "dev_macro_f1": found, "seconds": 3.0, "curve": [[1.0, 0.6]]}

    monkeypatch.setattr(trial, "_run", work)
    for _ in range(2):
        trial.run(job, None, {RATIO: 0.1}, reports.append)  # type: ignore[arg-type]
    assert len(runs) == 1
    assert reports[0] == reports[1]
    assert reports[0]["dev_macro_f1"] == 0.6
    assert reports[0]["is_final"]


def test_a_failure_leaves_no_message_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may quote the note it choked on; what Tune pickles and logs is ours, without a cause or context."""
    job, secret = _job(tmp_path), "Paziente con dispnea"

    def work(*_: Any) -> dict[str, Any]:
        raise ValueError(secret)

    monkeypatch.setattr(trial, "_run", work)
    for attempt in (1, 2):
        with pytest.raises(trial.TrialError) as failed:
            trial.run(job, None, {RATIO: 0.1}, lambda _: None)  # type: ignore[arg-type]
        assert secret not in str(failed.value)
        assert failed.value.__cause__ is None
        assert failed.value.__context__ is None
        record = _said(job, {RATIO: 0.1})
        assert (record["status"], record["attempts"]) == ("failed", attempt)
        assert record["error"].startswith("ValueError at")
        assert secret not in json.dumps(record)


def test_how_trials_ended_that_could_not_say_it(tmp_path: Path) -> None:
    job = _job(tmp_path)
    running = {"status": "running", "params": {RATIO: 0.1}, "trial_id": "x", "curve": [[1.0, 0.5]]}
    folder = job.trials / job.settings({RATIO: 0.1}).name
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(running))
    ends = [
        SimpleNamespace(config={RATIO: 0.1}, error=None),
        SimpleNamespace(config={RATIO: 0.2}, error=OSError("Paziente con dispnea")),
        SimpleNamespace(config=None, error=None),
    ]
    search._note_ends(job, ends)
    assert _said(job, {RATIO: 0.1}) == running | {"status": "stopped"}
    dead = _said(job, {RATIO: 0.2})
    assert (dead["status"], dead["params"]) == ("failed", {RATIO: 0.2})
    assert "OSError" in dead["error"]
    assert "dispnea" not in dead["error"]


def test_a_study_is_claimed_by_its_space_and_config(tmp_path: Path) -> None:
    folder = studies.claim(_plan(tmp_path, [0.1, 0.2]))
    assert folder == tmp_path / "demo/tune/llama"
    assert studies.claim(_plan(tmp_path, [0.1, 0.2], "resources.concurrent_arms=1", "tune.alone=1")) == folder
    for changed in ([0.1, 0.3], [0.1]):
        with pytest.raises(InputError, match=r"space\.params"):
            studies.claim(_plan(tmp_path, changed))
    with pytest.raises(InputError, match=r"config\.finetune\.epochs"):
        studies.claim(_plan(tmp_path, [0.1, 0.2], "finetune.epochs=3"))
    with pytest.raises(InputError, match="sample"):
        studies.claim(_plan(tmp_path, [0.1, 0.2], "tune.max_unlabelled=5"))
