"""A scorer with settings of its own, or untuned, beside students that are fine-tuned otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.findings import results
from raypipe.models import loading
from raypipe.runs import driver
from raypipe.runs.determinants import settings_of
from raypipe.runs.names import SCORER
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config
from tests.small_run import settings

MASKED = {"sft": {}, "decselfmask": {"masking": {"ratio": 0.2}}}
ARMS = MASKED | {"pseudo": {"pseudo_labels": {"confidence": 0.5}}}
OF_SCORER = ["attribute", "mask", "train/rows", "train/decselfmask", "answer", "train/pseudo"]


def _settings(name: str, **changes: Any) -> dict[str, Any]:
    return settings_of(name, settings(Path("runs"), arms=ARMS, **changes), {"model": {"weights": [1]}})


def test_what_depends_on_the_scorer_and_what_on_the_students() -> None:
    own = {"scorer__training": {"max_steps": 3}}
    for step in (*OF_SCORER, f"finetune/{SCORER}", "evaluate/decselfmask"):
        assert _settings(step) != _settings(step, **own), step
    for step in ("finetune/rows", "finetune/sft@1", "evaluate/sft"):
        assert _settings(step) == _settings(step, **own), step
    other = own | {"finetune__learning_rate": 0.5, "scorer__training": {"max_steps": 3, "learning_rate": 1e-3}}
    for step in OF_SCORER:
        assert _settings(step, **own) == _settings(step, **other), f"{step}: other students, the same scorer"
    assert _settings("finetune/decselfmask", **own) != _settings("finetune/decselfmask", **other)


def test_what_an_untuned_scorer_says_depends_on_no_fine_tuning() -> None:
    for step in OF_SCORER:
        before, after = (_settings(step, scorer__untuned=True, finetune__epochs=epochs) for epochs in (1.0, 2.0))
        assert before == after
        assert "model" in before["inputs"], step
        assert before != _settings(step), step


def test_students_of_a_tuned_scorer_are_not_those_of_an_untuned_one() -> None:
    for step in ("finetune/decselfmask", "finetune/decselfmask@1", "evaluate/decselfmask", "finetune/pseudo"):
        assert _settings(step) != _settings(step, scorer__untuned=True), step
    for step in ("finetune/sft@1", "evaluate/sft"):
        assert _settings(step) == _settings(step, scorer__untuned=True), step


def test_a_scorer_has_the_keys_of_finetune_that_it_does_not_give() -> None:
    whole = {"finetune": {"learning_rate": 0.5, "epochs": 3}, "scorer": {"training": {"epochs": 8}}}
    config = Config.model_validate(whole)
    assert (config.scorer_training.learning_rate, config.scorer_training.epochs) == (0.5, 8)
    assert not config.scorer_is_a_student
    assert Config.model_validate({"finetune": {"epochs": 3}}).scorer_is_a_student
    assert Config.model_validate({"finetune": {"epochs": 3}, "scorer": {"training": {}}}).scorer_is_a_student
    with pytest.raises(InputError, match="untuned"):
        configfile.build({"scorer": {"untuned": True, "training": {"epochs": 8}}}, "a config")


def test_a_scorer_of_its_own_serves_students_that_are_trained_for_less(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, arms=MASKED, scorer__training={"max_steps": 3})).open()
    driver.run_all(run)
    steps = {name: run.needed(f"finetune/{name}").manifest["steps"] for name in (SCORER, "sft", "decselfmask")}
    assert steps == {SCORER: 3, "sft": 2, "decselfmask": 2}
    built = results.build(run)
    assert built.reference == "sft"
    assert {"sft", "decselfmask", SCORER} < {row.name for row in built.arms}
    behind = [gate.name for gate in built.gates if "not behind" in gate.name]
    assert behind == [f"{reader} is not behind TF-IDF + logistic regression" for reader in ("sft", SCORER)]
    shutil.rmtree(run.step(f"evaluate/{SCORER}").path)
    (gate,) = [gate for gate in results.build(run).gates if gate.name == behind[1]]
    assert (gate.passed, gate.is_needed) == (None, True), "nothing is ranked without it"
    assert (run, f"evaluate/{SCORER}") in driver.run_command(run, "evaluate")
    assert run.is_done(f"evaluate/{SCORER}")
    assert f"evaluate/{SCORER}" not in [name for _, name in driver.run_command(run, "evaluate", ["sft"])]


def test_an_untuned_scorer_is_the_backbone(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, arms=MASKED, scorer__untuned=True, attribution__target="item_mid_max")).open()
    driver.run_all(run)
    assert not (run.folder / "finetune/scorer").exists()
    assert run.model(SCORER) == run.backbone
    assert run.needed("mask").manifest["arms"]["decselfmask"]["plans"]
    learned, backbone = (loading.load(model).model.state_dict() for model in (run.model("sft"), run.backbone))
    assert any((learned[name] != backbone[name]).any() for name in backbone)
    built = results.build(run)
    assert SCORER not in {row.name for row in built.arms}
    assert built.reference == "sft"


def test_a_scorer_that_nobody_asks_is_not_trained(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, arms={"sft": {}}, scorer__training={"max_steps": 3})).open()
    driver.run_all(run)
    assert not (run.folder / "finetune/scorer").exists()
    assert run.needed("evaluate/sft").manifest["predictions"]
