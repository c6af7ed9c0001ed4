"""The folders of studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.settings import configfile
from raypipe.tuning import studies
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import plans
from raypipe.tuning.space import Space
from raypipe.tuning.trial_tables import ModelFacts
from tests.tuning.demo import DEMO, RATIO, demo_plan


def test_a_study_is_claimed_by_its_space_and_config(tmp_path: Path) -> None:
    folder = studies.claim(demo_plan(tmp_path, [0.1, 0.2]))
    assert folder == tmp_path / "demo/tune/llama"
    assert (
        studies.claim(demo_plan(tmp_path, [0.1, 0.2], "resources.concurrent_arms=1", "tune.max_failures=0")) == folder
    )
    assert studies.claim(demo_plan(tmp_path, [0.1, 0.2], "tracking.tensorboard=true", "canaries.seed=3")) == folder
    recorded = json.loads((folder / "settings.json").read_text())
    assert "tracking" not in recorded
    (folder / "settings.json").write_text(json.dumps(recorded | {"tracking": {"dev_scores": True}}))
    assert studies.claim(demo_plan(tmp_path, [0.1, 0.2])) == folder, "an older study's, which recorded it"
    for changed in ([0.1, 0.3], [0.1]):
        with pytest.raises(InputError, match=r"space\.params"):
            studies.claim(demo_plan(tmp_path, changed))
    with pytest.raises(InputError, match=r"\(finetune\.epochs\)"):
        studies.claim(demo_plan(tmp_path, [0.1, 0.2], "finetune.epochs=3"))
    with pytest.raises(InputError, match="sample"):
        studies.claim(demo_plan(tmp_path, [0.1, 0.2], "tune.max_unlabelled=5"))


def test_models_that_were_searched_before_stand_in_the_tables(tmp_path: Path) -> None:
    written = configfile.written(DEMO, [f"runs={tmp_path}"]).value
    folders = {}
    for name, ratios in (("llama", [0.1, 0.2]), ("gpt_neox", [0.1, 0.2]), ("qwen3", [0.1, 0.3])):
        (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": ratios}}), backbones(written, [f"pretrain:{name}"]))
        folders[name] = studies.claim(plan)
        studies.save_facts(folders[name], ModelFacts(name, name, 3, plan.arm, {}))
    assert [facts.name for facts in studies.searched_before([folders["llama"]])] == ["gpt_neox"]
    assert studies.searched_before([folders["llama"], folders["gpt_neox"]]) == []
