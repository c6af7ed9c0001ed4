"""Which models are refused, and why: nothing that cannot be exact gets as far as its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import InputError
from raypipe.models import families, loading, tree
from raypipe.settings import config
from tests.tiny_models import CONFIGS, tiny_config, tiny_model


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "opt"}, "MLP"),
        ({"model_type": "bloom"}, "ALiBi"),
        ({"model_type": "mpt"}, "ALiBi"),
        ({"model_type": "mamba"}, "known: cohere, "),
        ({"is_causal": False}, "both directions"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "both directions"),
        ({"model_type": "falcon", "alibi": True}, "rotary positions"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
    ],
)
def test_models_that_cannot_be_exact_are_refused_by_name(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    written = {"model_type": "llama", "num_hidden_layers": 2, **changes}
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError) as refused:
        loading.check(config.Model(path=str(tmp_path)))
    (problem,) = refused.value.problems
    assert says in problem.what


@pytest.mark.parametrize("family", CONFIGS)
def test_tiny_models_are_accepted(family: str) -> None:
    assert families.refusal(tiny_config(family)) is None


@pytest.mark.parametrize(
    ("name", "context"),
    [("llama", 256), ("llama, dynamic", 64), ("phi3, longrope", 64), ("llama, yarn", 256), ("gemma3_text", 256)],
)
def test_the_context_ends_where_the_rotation_would_depend_on_the_batch(name: str, context: int) -> None:
    assert families.context(tiny_config(name)) == context


@pytest.mark.parametrize("name", ["llama, dynamic", "phi3, longrope"])
def test_longer_prompts_than_the_original_context_are_refused(name: str) -> None:
    """By the length of a path, not of the row: a tree may be longer than its prompts."""
    model, trunk = tiny_model(name), [5] * 60
    branch = np.asarray([0] * 60 + [1] * 4 + [2] * 4, np.int32)
    ids = np.asarray(trunk + [6] * 8, np.int32)
    with torch.no_grad():
        tree.hidden_states(model, tree.collate([(ids, branch)], 0, torch.device("cpu")))
        for rows in [(ids[:65], np.zeros(65, np.int32))], [(ids, np.asarray([0] * 60 + [1] * 5 + [2] * 3, np.int32))]:
            with pytest.raises(InputError, match=r"prompt\.max_tokens to 64 or less"):
                tree.hidden_states(model, tree.collate(rows, 0, torch.device("cpu")))
