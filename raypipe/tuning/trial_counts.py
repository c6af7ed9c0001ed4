"""How many trials a search would have, for `raypipe plan`."""

from __future__ import annotations

from pathlib import Path

from raypipe.settings import yamlfile
from raypipe.settings.config import Config
from raypipe.settings.yamlfile import Document
from raypipe.tuning import backbones, plan, space


def of_space(path: Path, written: Document) -> tuple[tuple[str, str, int], ...]:
    """Model, arm and trials of each study. Raises `InputError` with everything that is wrong with the space."""
    settings = yamlfile.validate(Config, written)
    loaded = space.load(path)
    studies = plan.plans(loaded, backbones.backbones(written.value, settings.tune.models or loaded.models))
    return tuple((study.backbone.name, study.arm, study.n_trials) for study in studies)
