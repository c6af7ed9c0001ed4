"""Runs of earlier versions go on: what they recorded with each step is what this version would record.

`recorded.json` holds settings.json of one step of each kind, of a whole run, a cell of a comparison and a study of a
search, made on generated notes with commit c3dd82d.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe.runs.determinants import settings_of
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.steps import STEPS, named
from raypipe.settings import defaults
from raypipe.settings.config import Config

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "recorded.json").read_text())
CASES = [(run, step) for run, of_run in RECORDED.items() for step in of_run["steps"]]


def _config(run: str) -> Config:
    return Config.model_validate(RECORDED[run]["config"])


@pytest.mark.parametrize(("run", "step"), CASES)
def test_a_step_of_an_earlier_version_is_finished(tmp_path: Path, run: str, step: str) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(RECORDED[run]["steps"][step]))
    (tmp_path / "manifest.json").write_text("{}")
    settings = settings_of(step, _config(run), {"model": {}, "statistics": {}})
    assert StepFolder(tmp_path, settings).state is State.FINISHED, step
    own = sorted(settings.keys() - {"inputs", "arms"})[-1]
    assert StepFolder(tmp_path, settings | {own: "another"}).state is State.OTHER


def test_every_kind_of_step_was_recorded() -> None:
    """A step that was added since has no record of c3dd82d."""
    assert {named(step).kind.name for step in RECORDED["run"]["steps"]} <= {step.name for step in STEPS}
    assert len({named(step).kind.name for step in RECORDED["run"]["steps"]}) == 23


def test_an_added_arm_outgrows_what_all_arms_share(tmp_path: Path) -> None:
    more = RECORDED["run"]["config"]["arms"] | {"span": {"masking": {"strategy": "span"}}}
    config = Config.model_validate(RECORDED["run"]["config"] | {"arms": more})
    for step in ("mask", "train/rows"):
        (tmp_path / "settings.json").write_text(json.dumps(RECORDED["run"]["steps"][step]))
        (tmp_path / "manifest.json").write_text("{}")
        assert StepFolder(tmp_path, settings_of(step, config, {"model": {}, "statistics": {}})).state is State.OUTGROWN


def test_a_key_newer_than_the_output_counts_as_its_default() -> None:
    recorded = {
        "finetune": {"epochs": 1.0, "checkpoint_every": 500},
        "data.notes": "n",
        "arms": {"a.b": {"masking": {"ratio": 0.2}}},
    }
    finetune = {"epochs": 1.0, "clip": 1.0, "seed": 7, "checkpoint_every": 50}
    now = {"finetune": finetune, "data.notes": "n", "data.transductive": False,
           "arms": {"a.b": {"masking": {"ratio": 0.2, "draws": 1, "stop_words": False}}, "new": {"start": "backbone"}},
           "inputs": {"notes": "file"}}  # fmt: skip
    filled = defaults.filled_in(recorded, now)
    assert filled["finetune"] == {"epochs": 1.0, "clip": 1.0, "checkpoint_every": 50}, (
        "another seed than the default is another setting"
    )
    assert filled["data.transductive"] is False
    assert filled["arms"] == {"a.b": {"masking": {"ratio": 0.2, "draws": 1}}}
    assert "inputs" not in filled
