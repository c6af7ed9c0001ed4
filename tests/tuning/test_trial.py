"""The record of a trial: done once, failed without any text of a note, stopped, or dead with its worker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.runs import steps
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.tuning import base_run, search, studies, trial
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import StudyPlan, configure, plans
from raypipe.tuning.space import Space
from raypipe.tuning.trial import StudyContext
from raypipe.tuning.trial_tables import ModelFacts
from tests.masking.cases import STATISTICS
from tests.small_run import settings

DEMO = Path(__file__).parents[2] / "jobs/configs/demo.yaml"
RATIO = "arms.decselfmask.masking.ratio"


def _plan(tmp_path: Path, ratios: list[float], *overrides: str) -> StudyPlan:
    written = configfile.written(DEMO, [f"runs={tmp_path}", *overrides]).value
    (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": ratios}}), backbones(written, []))
    return plan


def _context(tmp_path: Path) -> StudyContext:
    return search.context_of(_plan(tmp_path, [0.1, 0.2]), tmp_path / "study")


def _record(context: StudyContext, values: dict[str, Any]) -> dict[str, Any]:
    return trial.read(context.trial_folder(values))


def test_a_trial_is_named_by_what_it_says(tmp_path: Path) -> None:
    context = _context(tmp_path)
    assert context.settings({RATIO: 0.1}).name == context.settings({RATIO: 0.1}).name
    assert context.settings({RATIO: 0.1}).name != context.settings({RATIO: 0.2}).name
    assert context.settings({}).name == context.settings({RATIO: 0.15}).name, "what the config says anyway"
    assert context.settings({RATIO: 0.1}).resources.ray is False


def test_a_finished_trial_is_told_again_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, runs, reports = _context(tmp_path), [], []
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


def test_a_failure_leaves_no_message_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may quote the note it choked on; what Tune pickles and logs is ours, without a cause or context."""
    context, secret = _context(tmp_path), "Paziente con dispnea"

    def work(*_: Any) -> dict[str, Any]:
        raise ValueError(secret)

    monkeypatch.setattr(trial, "_run", work)
    for attempt in (1, 2):
        with pytest.raises(trial.TrialError) as failed:
            trial.run(context, None, {RATIO: 0.1}, lambda _: None)  # type: ignore[arg-type]
        assert secret not in str(failed.value)
        assert failed.value.__cause__ is None
        assert failed.value.__context__ is None
        record = _record(context, {RATIO: 0.1})
        assert (record["status"], record["attempts"]) == ("failed", attempt)
        assert record["error"].startswith("ValueError at")
        assert secret not in json.dumps(record)


def test_how_trials_ended_that_could_not_say_it(tmp_path: Path) -> None:
    context = _context(tmp_path)
    running = {"status": "running", "params": {RATIO: 0.1}, "trial_id": "x", "curve": [[1.0, 0.5]]}
    folder = context.trial_folder({RATIO: 0.1})
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(running))
    ends = [
        SimpleNamespace(config={RATIO: 0.1}, error=None),
        SimpleNamespace(config={RATIO: 0.2}, error=OSError("Paziente con dispnea")),
        SimpleNamespace(config=None, error=None),
    ]
    search._complete_records(context, ends)
    assert _record(context, {RATIO: 0.1}) == running | {"status": "stopped"}
    dead = _record(context, {RATIO: 0.2})
    assert (dead["status"], dead["params"]) == ("failed", {RATIO: 0.2})
    assert "OSError" in dead["error"]
    assert "dispnea" not in dead["error"]


def test_the_base_run_has_the_constants_of_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (backbone,) = backbones(configfile.written(DEMO, [f"runs={tmp_path}"]).value, [])
    (plan,) = plans(Space("mine.py", {"attribution.reduction": "sum", RATIO: {"grid_search": [0.1, 0.2]}}), [backbone])
    monkeypatch.setattr(base_run, "open_run", lambda settings, **_: SimpleNamespace(settings=settings))
    monkeypatch.setattr(base_run, "_share", lambda run: None)
    for step in ("corpus_statistics", "learn", "evaluate"):
        monkeypatch.setattr(base_run.steps, step, lambda *_: None)
    base = base_run.prepare(plan, tmp_path, print)
    assert base.settings.attribution.reduction == "sum"
    assert (
        base.settings.attribution
        == search.context_of(plan, tmp_path).settings({**plan.constants, RATIO: 0.1}).attribution
    )


def test_trials_find_the_counts_of_the_base_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those of another layer's relevance, of which all are stored."""
    monkeypatch.setattr(steps, "attribute", lambda run: None)
    monkeypatch.setattr(steps.corpus_counts, "compute", lambda *_: STATISTICS)
    by_relevance = {"strategy": "mslm", "mslm": {"terms": "attribution"}}
    cases = [({"strategy": "pmi"}, 1, True), (by_relevance, 0, True), (by_relevance, 1, False)]
    for number, (masking, layer, is_shared) in enumerate(cases):
        arms = {"a": {"masking": masking}}
        base = Run(settings(tmp_path, name=f"base{number}", arms=arms, attribution__keep="all"))
        made = steps.corpus_statistics(base)
        more = configure(base.settings, {"runs": str(tmp_path / "trials"), "attribution.layer": layer, "train.seed": 1})
        assert made is not None
        assert (steps.corpus_statistics(Run(more, base=base)) == made) == is_shared


def test_trials_at_once_are_what_the_cluster_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores of this machine count where Ray runs here alone."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    def at_once(gpus: float = 0.0, *overrides: str) -> int:
        plan = _plan(tmp_path, [0.1], "tune.cpus_per_trial=2", *overrides)
        return search._tune_config(plan.space, plan.backbone.config({}), 64.0, gpus).search_alg.max_concurrent

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert at_once() == 2
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert at_once() == 32
    assert at_once(4.0) == 4, "a GPU each"
    assert at_once(4.0, "tune.gpus_per_trial=0.5") == 8, "two trials share a GPU"


@pytest.mark.parametrize("planted", ["search_gen_state.pkl", "0a1b_00000/error.pkl", "0a1b_00000"])
def test_state_of_another_user_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    """Ray's state is pickle, a trial's error too; the check stands before anything starts."""
    plan = _plan(tmp_path, [0.1])
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


def test_a_study_is_claimed_by_its_space_and_config(tmp_path: Path) -> None:
    folder = studies.claim(_plan(tmp_path, [0.1, 0.2]))
    assert folder == tmp_path / "demo/tune/llama"
    assert studies.claim(_plan(tmp_path, [0.1, 0.2], "resources.concurrent_arms=1", "tune.max_failures=0")) == folder
    for changed in ([0.1, 0.3], [0.1]):
        with pytest.raises(InputError, match=r"space\.params"):
            studies.claim(_plan(tmp_path, changed))
    with pytest.raises(InputError, match=r"config\.finetune\.epochs"):
        studies.claim(_plan(tmp_path, [0.1, 0.2], "finetune.epochs=3"))
    with pytest.raises(InputError, match="sample"):
        studies.claim(_plan(tmp_path, [0.1, 0.2], "tune.max_unlabelled=5"))


def test_models_that_were_searched_before_stand_in_the_tables(tmp_path: Path) -> None:
    written = configfile.written(DEMO, [f"runs={tmp_path}"]).value
    folders = {}
    for name, ratios in (("llama", [0.1, 0.2]), ("gpt_neox", [0.1, 0.2]), ("qwen3", [0.1, 0.3])):
        (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": ratios}}), backbones(written, [f"pretrain:{name}"]))
        folders[name] = studies.claim(plan)
        studies.save_facts(folders[name], ModelFacts(name, name, 3, plan.arm, {}))
    assert [facts.name for facts in studies.searched_before([folders["llama"]])] == ["gpt_neox"]
    assert studies.searched_before([folders["llama"], folders["gpt_neox"]]) == []
