"""The models of a search: each is the same config with another backbone, and a study of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.errors import InputError, Problem
from raypipe.settings import configfile
from raypipe.settings.config import Config

SCRATCH = "pretrain"
_PINNED = re.compile(r"(?P<path>[^@]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True)
class Backbone:
    """One model of a search."""

    name: str  # of its study's folder, and in tables
    written: dict[str, Any]  # the config as written, with this model
    depth: int  # decoder blocks
    family: str

    def config(self, changes: Mapping[str, Any], where: str = "the space") -> Config:
        """The config with values at dotted keys. Raises `InputError` for what a config refuses."""
        return configfile.build(configfile.changed(self.written, changes), where)


def backbones(written: Mapping[str, Any], models: Sequence[str]) -> list[Backbone]:
    """One per name; without names, the config's own model. Raises `InputError` with all models that are no backbone."""
    out: list[Backbone] = []
    problems: list[Problem] = []
    for model in models or [""]:
        try:
            out.append(_backbone(written, model))
        except InputError as error:
            problems += [Problem(f"--models {model}: {p.where}" if model else p.where, p.what) for p in error.problems]
    names = [backbone.name for backbone in out]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(Problem("--models", f"two models would share the folder {name!r}; rename one of them"))
    if problems:
        raise InputError(problems)
    return out


def _backbone(written: Mapping[str, Any], model: str) -> Backbone:
    changed = configfile.changed(written, _changes(model))
    config = configfile.build(changed, "--models")
    if config.model.path == SCRATCH:
        if config.pretrain is None:
            raise InputError([Problem("model.path", "is pretrain, but there is no section pretrain")])
        return Backbone(config.pretrain.family, changed, config.pretrain.layers, config.pretrain.family)
    from raypipe.models import loading

    architecture = loading.check(config.model)
    return Backbone(_slug(config.model.path), changed, architecture.num_hidden_layers, architecture.model_type)


def _changes(model: str) -> dict[str, Any]:
    """Config keys that make this the backbone."""
    if not model:
        return {}
    kind, colon, family = model.partition(":")
    if kind == SCRATCH:
        return {"model.path": SCRATCH, **({"pretrain.family": family} if colon else {})}
    pinned = _PINNED.fullmatch(model)
    path, revision = (pinned["path"], pinned["revision"]) if pinned else (model, None)
    return {"model.path": path, "model.revision": revision, "model.adapter": None}


def _slug(path: str) -> str:
    """The last part of a path or hub id, as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).name).strip("-.") or "model"
