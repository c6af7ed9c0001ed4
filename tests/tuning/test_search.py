"""The search around the trials, without Ray. With Ray: test_search_ray.py."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.tuning import base_run, search, studies
from tests.tuning.demo import RATIO, demo_context, demo_plan, record_of


def test_how_trials_ended_that_could_not_say_it(tmp_path: Path) -> None:
    context = demo_context(tmp_path)
    running = {"status": "running", "params": {RATIO: 0.1}, "trial_id": "x", "curve": [[1.0, 0.5]]}
    folder = context.trial_folder({RATIO: 0.1})
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(running))
    (folder / "train" / "decselfmask" / "model").mkdir(parents=True)
    ends = [
        SimpleNamespace(config={RATIO: 0.1}, error=None),
        SimpleNamespace(config={RATIO: 0.2}, error=OSError("Paziente con dispnea")),
        SimpleNamespace(config=None, error=None),
    ]
    search._complete_records(context, ends)
    assert record_of(context, {RATIO: 0.1}) == running | {"status": "stopped"}
    assert [path.name for path in folder.iterdir()] == ["trial.json"], "it does not go on"
    dead = record_of(context, {RATIO: 0.2})
    assert (dead["status"], dead["params"]) == ("failed", {RATIO: 0.2})
    assert "OSError" in dead["error"]
    assert "dispnea" not in dead["error"]


def test_trials_at_once_are_what_the_cluster_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores of this machine count where Ray runs here alone."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    def at_once(gpus: float = 0.0, *overrides: str) -> int:
        plan = demo_plan(tmp_path, [0.1], "tune.cpus_per_trial=2", *overrides)
        return search._tune_config(plan.space, plan.backbone.config({}), 64.0, gpus).search_alg.max_concurrent

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert at_once() == 2
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert at_once() == 32
    assert at_once(4.0) == 4, "a GPU each"
    assert at_once(4.0, "tune.gpus_per_trial=0.5") == 8, "two trials share a GPU"


def test_workers_and_tune_rank_by_the_metric_of_the_space(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [0.1])
    plan = replace(plan, space=replace(plan.space, metric="dev_auc"))
    assert search.context_of(plan, tmp_path).plan.space.metric == "dev_auc"
    assert search._tune_config(plan.space, plan.backbone.config({}), 2.0, 0.0).metric == "dev_auc"


def test_a_search_that_goes_on_counts_the_trials_that_ended_before(tmp_path: Path) -> None:
    lines: list[str] = []
    progress = search._progress(demo_plan(tmp_path, [0.1, 0.2, 0.3]), lines.append)
    before, runs = (SimpleNamespace(is_finished=lambda ended=ended: ended) for ended in (True, False))
    now = SimpleNamespace(is_finished=lambda: False, last_result={"dev_macro_f1": 0.5})
    progress.on_trial_complete(1, [before, now, runs], now)
    assert lines == ["llama: trial 2 of 3: dev macro F1 50.0"]


def test_a_grid_goes_on_by_its_records_and_with_the_trials_at_once_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune's own state would bring back the number of trials at once of the interrupted command."""
    restored = SimpleNamespace(can_restore=lambda path: True, restore=lambda *_, **__: "as it was left")
    monkeypatch.setattr("ray.tune.Tuner", restored)
    plan, lines = demo_plan(tmp_path, [0.1]), []
    searched = replace(plan, space=replace(plan.space, search=object()))
    (state := tmp_path / "ray").mkdir()
    assert search._restored(state, None, searched, lines.append) == "as it was left"
    assert search._restored(state, None, plan, lines.append) is None
    assert not state.exists()
    (state := tmp_path / "ray").mkdir()
    stopped = replace(plan, space=replace(plan.space, stop={"training_iteration": 9}))
    assert search._restored(state, None, stopped, lines.append) == "as it was left"
    assert lines[:2] == ["llama: going on", "llama: going on; trials that are finished report again"]


def test_trials_report_epochs_to_whatever_may_stop_them(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [0.1])
    for changes, reports in (({}, False), ({"stop": {"training_iteration": 3}}, True), ({"scheduler": object()}, True)):
        asked = replace(plan, space=replace(plan.space, **changes))
        assert search.context_of(asked, tmp_path).reports_epochs is reports


def test_a_billion_trials_do_not_start_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_run, "prepare", lambda *_: pytest.fail("the search has started"))
    plan = replace(demo_plan(tmp_path, [0.1]), params={f"key{i}": {"grid_search": list(range(10))} for i in range(9)})
    assert plan.n_trials == 10**9
    with pytest.raises(InputError) as refused:
        search.tune([plan, plan], print)
    (problem,) = refused.value.problems
    most = "1,000,000,000 trials, more than tune.max_trials allows (1,000): try fewer values, or raise it"
    assert str(problem) == f"mine.py: {most}"
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_as_many_trials_as_are_allowed_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any) -> None:
        raise InputError("started")

    monkeypatch.setattr(base_run, "prepare", started)
    for most, said in ((3, "started"), (2, "3 trials, more than tune.max_trials allows \\(2\\)")):
        with pytest.raises(InputError, match=said):
            search.tune([demo_plan(tmp_path, [0.1, 0.2, 0.3], f"tune.max_trials={most}")], print)


@pytest.mark.parametrize("planted", ["search_gen_state.pkl", "0a1b_00000/error.pkl", "0a1b_00000"])
def test_state_of_another_user_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    """Ray's state is pickle, a trial's error too; the check stands before anything starts."""
    plan = demo_plan(tmp_path, [0.1])
    path = studies.claim(plan) / "ray" / planted
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    stat = os.stat

    def of_another(where: Any, **more: Any) -> Any:
        own = stat(where, **more)
        return SimpleNamespace(st_uid=own.st_uid + 1) if Path(where) == path else own

    monkeypatch.setattr(search.os, "stat", of_another)
    monkeypatch.setattr(base_run, "prepare", lambda *_: pytest.fail("the search has started"))
    with pytest.raises(InputError, match="belongs to another user"):
        search.tune([plan], print)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "search" / "ray").mkdir(parents=True, mode=0o700)
    (tmp_path / "search" / "ray" / "tuner.pkl").write_text("")
    (tmp_path / "search" / "ray" / "tuner.pkl").chmod(0o600)
    return tmp_path / "search"


def test_state_that_nobody_else_can_write_is_restored(state: Path) -> None:
    search._demand_own([state, state / "none"])


@pytest.mark.parametrize("place", ["..", ".", "ray", "ray/tuner.pkl"])
def test_state_that_anyone_can_write_is_not_unpickled(state: Path, place: str) -> None:
    path = (state / place).resolve()
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(InputError, match="chmod go-w") as refused:
        search._demand_own([state])
    assert [problem.where for problem in refused.value.problems] == [str(path)]


def test_state_behind_a_link_is_not_unpickled(state: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pkl").write_text("")
    (state / "ray" / "tuner.pkl").unlink()
    (state / "ray" / "tuner.pkl").symlink_to(tmp_path / "other.pkl")
    with pytest.raises(InputError, match="is a link"):
        search._demand_own([state])


def test_state_of_root_is_another_users(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: os.stat(state).st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        search._demand_own([state])
