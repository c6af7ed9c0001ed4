"""One token tree equals one prompt per branch: for every family, in training, scoring and across workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.models import tree
from tests.tiny_models import CONFIGS, VARIANTS, tiny_model

# longer than the windows and the original contexts of all tiny models
TRUNK, BRANCHES = [*range(5, 25)], [[30, 31, 32], [33, 34], [30, 35, 36, 37]]


def a_tree() -> tuple[np.ndarray, np.ndarray]:
    ids = TRUNK + [token for branch in BRANCHES for token in branch]
    branch = [0] * len(TRUNK) + [i for i, b in enumerate(BRANCHES, start=1) for _ in b]
    return np.asarray(ids, np.int32), np.asarray(branch, np.int32)


@pytest.mark.parametrize("name", [*CONFIGS, *VARIANTS])
def test_logits_of_a_tree_equal_the_models_own_of_separate_prompts(name: str) -> None:
    """Beside a shorter row, all states, by the model's own forward function."""
    model = tiny_model(name)
    short = (np.asarray(TRUNK[:3], np.int32), np.zeros(3, np.int32))
    trees = tree.collate([a_tree(), short], pad_id=0, device=torch.device("cpu"))
    with torch.no_grad():
        hidden = tree.hidden_states(model, trees)
        at = len(TRUNK)
        for branch in BRANCHES:
            alone = model(input_ids=torch.tensor([TRUNK + branch])).logits[0].float()
            path = torch.cat([hidden[0, : len(TRUNK)], hidden[0, at : at + len(branch)]])
            torch.testing.assert_close(tree.logits(model, path), alone, atol=1e-4, rtol=1e-4)
            at += len(branch)
        short_alone = model(input_ids=torch.tensor([TRUNK[:3]])).logits[0].float()
        torch.testing.assert_close(tree.logits(model, hidden[1, :3]), short_alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*CONFIGS, "gemma3_text, soft caps"])
def test_some_logits_are_columns_of_all(name: str) -> None:
    model = tiny_model(name)
    hidden, tokens = torch.randn(3, 32), torch.tensor([5, 9, 300])
    with torch.no_grad():
        every = tree.logits(model, hidden)
        torch.testing.assert_close(tree.logits(model, hidden, tokens), every[:, tokens], atol=1e-5, rtol=1e-4)
        assert "forward" not in model.base_model.__dict__
        torch.testing.assert_close(tree.logits(model, hidden), every)


@pytest.mark.parametrize("name", ["mistral", "phi3"])
def test_windows_change_the_logits_here(name: str) -> None:
    """Else the tests above could not see a missing window."""
    ids, model = torch.tensor([TRUNK]), tiny_model(name)
    with torch.no_grad():
        near = model(input_ids=ids).logits[0, -1]
        model.config.sliding_window = None
        assert (model(input_ids=ids).logits[0, -1] - near).abs().max() > 0.1


def test_sources_are_the_predecessors_on_the_path() -> None:
    ids, branch = a_tree()
    trees = tree.collate([(ids, branch)], 0, torch.device("cpu"))
    source, n = trees.source_BT[0].tolist(), len(TRUNK)
    assert source[1:n] == list(range(n - 1))
    assert source[n:] == [n - 1, n, n + 1, n - 1, n + 3, n - 1, n + 5, n + 6, n + 7]
    assert trees.position_ids_BT[0].tolist() == [*range(n), n, n + 1, n + 2, n, n + 1, n, n + 1, n + 2, n + 3]
    assert trees.longest == n + 4


def test_plain_rows_need_no_mask() -> None:
    """Their padding goes on counting: transformers would read a new start as another sequence."""
    rows = [(np.asarray(TRUNK[:n], np.int32), np.zeros(n, np.int32)) for n in (9, 4)]
    trees = tree.collate(rows, 0, torch.device("cpu"))
    assert trees.is_plain
    assert trees.position_ids_BT.tolist() == [[*range(9)]] * 2


def test_short_rows_in_bfloat16_are_read_without_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same states, as far as bfloat16 goes; everything else keeps the model's own attention."""
    model = tiny_model("gemma3_text").bfloat16()
    trees = tree.collate([a_tree()], pad_id=0, device=torch.device("cpu"))
    assert tree._attention(model, trees) == "eager"
    with torch.no_grad():
        written_out = tree.hidden_states(model, trees)
        monkeypatch.setattr(tree, "WRITTEN_OUT", 0)
        assert tree._attention(model, trees) == "sdpa"
        torch.testing.assert_close(written_out, tree.hidden_states(model, trees), atol=5e-2, rtol=5e-2)
    monkeypatch.undo()
    model.gradient_checkpointing_enable()
    assert tree._attention(model, trees) == "sdpa"
    assert tree._attention(tiny_model("gemma3_text"), trees) == "sdpa", "float32"
    assert tree._attention(tiny_model("falcon").bfloat16(), trees) == "sdpa", "its blocks take no other attention"
