"""One token tree equals one prompt per branch: for every family, in training, scoring and across workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.models import tree
from raypipe.models.families import FAMILIES
from tests.tiny_models import tiny_model

TRUNK, BRANCHES = [5, 6, 7, 8, 9, 10, 11], [[12, 13, 14], [15, 16], [12, 17, 18, 19]]


def _tree() -> tuple[np.ndarray, np.ndarray]:
    ids = TRUNK + [token for branch in BRANCHES for token in branch]
    branch = [0] * len(TRUNK) + [i for i, b in enumerate(BRANCHES, start=1) for _ in b]
    return np.asarray(ids, np.int32), np.asarray(branch, np.int32)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tree_equals_separate_prompts(family: str) -> None:
    model = tiny_model(family)
    short = (np.asarray(TRUNK[:3], np.int32), np.zeros(3, np.int32))
    trees = tree.collate([_tree(), short], pad_id=0, device=torch.device("cpu"))
    with torch.no_grad():
        hidden = tree.hidden_states(model, trees)[0]
        at = len(TRUNK)
        for branch in BRANCHES:
            alone = model.base_model(input_ids=torch.tensor([TRUNK + branch])).last_hidden_state[0]
            torch.testing.assert_close(hidden[at : at + len(branch)], alone[len(TRUNK) :], atol=2e-5, rtol=1e-4)
            at += len(branch)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_equal_the_models_own(family: str) -> None:
    model = tiny_model(family)
    ids = torch.tensor([TRUNK])
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(tree.logits(model, hidden), model(input_ids=ids).logits[0].float())


def test_sources_are_the_predecessors_on_the_path() -> None:
    ids, branch = _tree()
    trees = tree.collate([(ids, branch)], 0, torch.device("cpu"))
    source = trees.source_BT[0].tolist()
    last = len(TRUNK) - 1
    assert source[1 : last + 1] == list(range(last))
    assert source[last + 1 :] == [last, 7, 8, last, 10, last, 12, 13, 14]
    assert trees.position_ids_BT[0].tolist() == [*range(7), 7, 8, 9, 7, 8, 7, 8, 9, 10]
