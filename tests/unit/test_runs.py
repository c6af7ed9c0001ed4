"""Runs in this process: the steps fit together, are not repeated, and are shared with a base run where they can be."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raypipe import experiment, results
from raypipe.config import Config
from raypipe.errors import InputError
from raypipe.models import loading
from raypipe.run import SCORER, Run
from raypipe.training import selection
from tests.small_run import settings

ARMS = {
    "sft": {},
    "random_init": {"start": "random"},
    "zero_shot": {"finetune": False},
    "pseudo": {"pseudo_labels": {"confidence": 0.5, "max_imbalance": None}},
    "decselfmask": {"masking": {"ratio": 0.2}},
    "kv": {"masking": {"ratio": 0.2}, "attribution": {"method": "kv_direct_value", "layer": 1}},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished small run with relevance at every layer."""
    run = Run(settings(tmp_path_factory.mktemp("runs"), attribution__keep="all", arms=ARMS, repeats=2))
    experiment.prepare(run)
    experiment.attribute(run)  # on its own, so that other runs can read it
    for arm in ARMS:
        experiment.learn(run, arm)
        experiment.evaluate(run, arm)
    return run


def _made(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}


def test_a_run_is_reported_whole(base: Run) -> None:
    built = results.build(base)
    assert [row.name for row in built.arms] == [*ARMS, "tfidf_logistic"]
    runs_of = {row.name: row.macro_f1.n_runs for row in built.arms}
    assert runs_of == {"sft": 2, "random_init": 2, "zero_shot": 1, "pseudo": 2, "decselfmask": 2, "kv": 2} | {
        "tfidf_logistic": 1
    }
    assert {m.arm for m in built.material} == {"pseudo", "decselfmask", "kv"}
    assert "pseudo-labels of pseudo" in built.facts
    assert len(built.agreement) == 2  # the run's relevance, and that of kv


def test_a_finished_run_does_nothing_again(base: Run) -> None:
    before = _made(base.folder)
    experiment.run_all(Run(base.settings))
    assert _made(base.folder) == before


def test_repeats_differ_in_order_alone(base: Run) -> None:
    first, second = (loading.load(base.model(f"random_init{at}")).model.state_dict() for at in ("", "@1"))
    assert any((first[name] != second[name]).any() for name in first)
    steps = [json.loads((base.folder / f"finetune/random_init{at}/manifest.json").read_text()) for at in ("", "@1")]
    assert steps[0]["steps"] == steps[1]["steps"]


def test_a_child_shares_what_its_settings_do_not_touch(base: Run) -> None:
    child = Run(_child(base, arms={"decselfmask": {"masking": {"ratio": 0.4}}}), base=base)
    for step in ("pretrain", "finetune/rows", f"finetune/{SCORER}", "attribute"):
        assert child.step(step).folder == base.folder / step, step
    for step in ("mask", "train/rows", "train/decselfmask"):
        assert child.step(step).folder == child.folder / step, step
    assert child.corpus is base.corpus


def test_a_trial_equals_the_same_config_run_by_hand(base: Run, tmp_path: Path) -> None:
    changes = {"arms": {"decselfmask": {"masking": {"ratio": 0.4}}}, "attribution__layer": 1}
    child = Run(_child(base, **changes), base=base)
    experiment.run_all(child)
    alone = Run(settings(tmp_path, **changes))
    experiment.run_all(alone)
    plans = [pq.read_table(run.step("mask").data).sort_by("note_id")["plans"].to_pylist() for run in (child, alone)]
    assert plans[0] == plans[1]
    scores = [pq.read_table(run.step("evaluate/decselfmask").data)["scores"].to_pylist() for run in (child, alone)]
    assert scores[0] == scores[1]


def test_masking_reads_the_layer_that_is_asked_for(base: Run) -> None:
    plans = []
    for layer in (0, 1):
        child = Run(_child(base, attribution__layer=layer, arms={"decselfmask": ARMS["decselfmask"]}), base=base)
        experiment.mask(child)
        plans.append(pq.read_table(child.step("mask").data).sort_by("note_id")["plans"].to_pylist())
    assert plans[0] != plans[1]


def test_a_layer_without_relevance_is_refused(base: Run) -> None:
    arms = {"decselfmask": ARMS["decselfmask"]}
    wanted = _child(base, attribution__layer=3, arms=arms)
    with pytest.raises(InputError, match=r"attribution\.layer: is 3, .* valid at 0\.\.2"):
        Run(wanted, base=base)
    child = Run(_child(base, arms=arms), base=base)
    child.settings = wanted  # past the check
    with pytest.raises(InputError, match="relevance was kept at"):
        experiment.mask(child)


def test_sure_answers_are_kept_and_classes_evened_out(base: Run) -> None:
    answers = base.step("pseudo").folder / "answers"
    arm = base.settings.arms["pseudo"].pseudo_labels
    assert arm is not None
    _, every = selection.keep_shares(answers, arm)
    assert set(every.values()) == {1.0}  # no limit
    found: Counter[tuple[str, str]] = Counter()
    for row in pq.read_table(answers).to_pylist():
        found.update(zip(row["task_id"] or (), row["predicted"] or (), strict=True))
    assert set(every) <= set(found)
    confidence, evened = selection.keep_shares(
        answers, arm.model_copy(update={"max_imbalance": 1.0, "confidence": 0.01})
    )
    for (task_id, answer), share in evened.items():
        rarest = min(n for (task, _), n in found.items() if task == task_id)
        assert share == pytest.approx(rarest / found[task_id, answer])
    task_id, answer = next(iter(evened))
    assert selection.is_kept("n", task_id, answer, 0.5, (confidence, {(task_id, answer): 1.0}))
    assert not selection.is_kept("n", task_id, answer, 0.001, (confidence, {(task_id, answer): 1.0}))
    assert not selection.is_kept("n", task_id, answer, 0.5, (confidence, {(task_id, answer): 0.0}))


def _child(base: Run, **changes: object) -> Config:
    name = f"child{len(list(base.folder.parent.iterdir()))}"
    return settings(base.folder.parent, name=name, attribution__keep="all", **changes)
