"""The model of a plan while its weights, or its tokenizer, are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.models.prompts import PromptEncoder
from raypipe.runs.planning import estimate, tokens
from raypipe.runs.planning.options import Options
from raypipe.runs.run import Run
from raypipe.settings.config import Prompt
from tests.small_run import settings
from tests.tiny_models import TEXTS, tiny_config, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(tiny_config("llama").to_dict()))
    return tmp_path


def test_characters_stand_for_tokens(folder: Path) -> None:
    model = tokens._of_config(folder, TEXTS)
    assert "4 characters a token" in model.tokenizer_source
    encoder = PromptEncoder(model.tokenizer, Prompt(), [])
    ids, offsets = encoder.note_ids(TEXTS[0])
    assert len(set(ids)) > len(ids) / 2
    assert len(ids) == -(-len(TEXTS[0]) // tokens.CHARACTERS)
    assert offsets[-1, 1] == len(TEXTS[0])


def test_a_tokenizer_beside_the_config_is_used(folder: Path) -> None:
    tiny_tokenizer().save_pretrained(folder)
    model = tokens._of_config(folder, TEXTS)
    assert model.tokenizer_source == "the tokenizer beside the config"
    assert len(model.tokenizer) == len(tiny_tokenizer())


def test_a_config_alone_is_enough_for_a_plan(folder: Path, tmp_path: Path) -> None:
    run = Run(settings(tmp_path / "runs"))
    planned = estimate.plan(run, Options(peak=1e12, model_config=folder / "config.json", notes=1_900_000))
    steps = {step.name for step in planned.steps}
    assert planned.corpus.to_learn_from == 1_900_000
    assert "train/decselfmask" in steps
    assert not {"pretrain", "pretrain/rows"} & steps  # the model that is planned for is there, or will be
    assert not (tmp_path / "runs").exists()
