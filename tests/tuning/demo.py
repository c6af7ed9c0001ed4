"""Spaces, studies and trials over the demo config, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypipe.settings import configfile
from raypipe.tuning import search, space, trial
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import StudyPlan, plans
from raypipe.tuning.space import Space
from raypipe.tuning.trial import StudyContext

DEMO = Path(__file__).parents[2] / "jobs/configs/demo.yaml"
RATIO, LAYER = "arms.decselfmask.masking.ratio", "attribution.layer"


def space_of(tmp_path: Path, text: str) -> space.Space:
    path = tmp_path / "mine.py"
    path.write_text(f"from ray import tune\n{text}\n")
    return space.load(path)


def plans_of(of: space.Space, *models: str, overrides: tuple[str, ...] = ()) -> list[StudyPlan]:
    return plans(of, backbones(configfile.written(DEMO, overrides).value, models))


def demo_plan(tmp_path: Path, ratios: list[float], *overrides: str) -> StudyPlan:
    written = configfile.written(DEMO, [f"runs={tmp_path}", *overrides]).value
    (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": ratios}}), backbones(written, []))
    return plan


def demo_context(tmp_path: Path) -> StudyContext:
    return search.context_of(demo_plan(tmp_path, [0.1, 0.2]), tmp_path / "study")


def record_of(context: StudyContext, values: dict[str, Any]) -> dict[str, Any]:
    return trial.read(context.trial_folder(values))
