"""The models of a search, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.settings import configfile
from raypipe.tuning.backbones import backbones
from tests.tuning.demo import DEMO


def test_a_profile_brings_its_defaults() -> None:
    """Trials change the config as written: keys that it leaves open follow the trial's profile."""
    (backbone,) = backbones(configfile.written(DEMO).value, [])
    masking = backbone.config({"arms.decselfmask.masking.profile": "paper"}).arms["decselfmask"].masking
    assert masking is not None
    assert (masking.selection, masking.format, masking.prompt_loss) == ("hysteresis", "single", 1.0)


def test_models_by_name(tmp_path: Path) -> None:
    written = configfile.written(DEMO).value
    models = backbones(written, ["pretrain:llama", "pretrain:gpt_neox"])
    assert [(b.name, b.family, b.depth) for b in models] == [("llama", "llama", 3), ("gpt_neox", "gpt_neox", 3)]
    with pytest.raises(InputError) as refused:
        backbones(written, ["pretrain:bert", str(tmp_path / "nothing"), "pretrain", "pretrain:llama"])
    said = "\n".join(map(str, refused.value.problems))
    assert "pretrain:bert" in said
    assert "nothing" in said
    assert "share the folder 'llama'" in said
