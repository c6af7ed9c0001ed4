"""FlexAttention's blocks and the dense mask are the same rule, for every family that takes both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from transformers.integrations.flex_attention import WrappedFlexAttention

from raypipe.errors import InputError
from raypipe.models import loading, tree, tree_masks
from raypipe.settings import config
from tests.models.test_tree import BRANCHES, TRUNK, a_tree
from tests.tiny_models import CONFIGS, VARIANTS, tiny_model

CPU = torch.device("cpu")


def _trees(is_plain: bool = False) -> tree.Trees:
    """A tree beside a shorter row, or two plain rows."""
    ids, branch = a_tree()
    if is_plain:
        branch[:] = 0
    return tree.collate([(ids, branch), (ids[:3], branch[:3])], 0, CPU)


@pytest.mark.parametrize("window", [None, 4])
def test_both_forms_are_one_rule(window: int | None) -> None:
    trees = _trees()
    rule = tree_masks.sees(trees.branch_BT, trees.position_ids_BT, window)
    rows, width = trees.branch_BT.shape
    of_flex = create_mask(rule, rows, None, width, width, device="cpu")
    dense = tree_masks.dense(rule, trees.branch_BT.shape, torch.float32, CPU)
    assert torch.equal(of_flex, dense == 0)
    first, second = len(TRUNK), len(TRUNK) + len(BRANCHES[0])
    assert not of_flex[0, 0, second, first], "questions do not see each other"
    assert bool(of_flex[0, 0, second, 0]) == (window is None), "the note's begin is too far away for the window"
    assert of_flex[1, 0, 5, 5], "padding sees itself"


@pytest.mark.parametrize(
    ("name", "is_plain"), [*((name, False) for name in [*CONFIGS, *VARIANTS]), ("llama", True), ("gemma3_text", True)]
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_same_states(name: str, is_plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not compiled here: the same mathematics, in seconds."""
    monkeypatch.setattr(WrappedFlexAttention, "__call__", lambda _: flex_attention)
    model, trees = tiny_model(name), _trees(is_plain)
    if not model._supports_flex_attn:
        pytest.skip("refused")
    is_real = trees.branch_BT >= 0
    with torch.no_grad():
        dense = tree.hidden_states(model, trees)
        model.set_attn_implementation(tree_masks.FLEX)
        torch.testing.assert_close(tree.hidden_states(model, trees)[is_real], dense[is_real], atol=1e-4, rtol=1e-4)


def test_under_autocast_the_kernel_gets_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[set[torch.dtype]] = []

    def spy(*inputs: torch.Tensor, **more: Any) -> torch.Tensor:
        dtypes.append({x.dtype for x in inputs})
        return flex_attention(*inputs, **more)

    monkeypatch.setattr(WrappedFlexAttention, "__call__", lambda _: spy)
    model = tiny_model("llama")
    model.set_attn_implementation(tree_masks.FLEX)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tree.hidden_states(model, _trees())
    assert dtypes == [{torch.bfloat16}] * 4


@pytest.mark.slow  # a C++ compiler makes the kernel
def test_compiled_flex_attention_gives_the_same_states() -> None:
    model, trees = tiny_model("gemma3_text"), _trees()
    is_real = trees.branch_BT >= 0
    with torch.no_grad():
        dense = tree.hidden_states(model, trees)
        model.set_attn_implementation(tree_masks.FLEX)
        torch.testing.assert_close(tree.hidden_states(model, trees)[is_real], dense[is_real], atol=1e-4, rtol=1e-4)


def test_blocks_that_nobody_sees_are_left_out() -> None:
    """A trunk and four branches of one block (128 tokens) each: of 25, 5 on the diagonal, 4 of branches to trunk."""
    branch_BT = torch.arange(5).repeat_interleave(128)[None]
    rule = tree_masks.sees(branch_BT, branch_BT, None)
    made = tree_masks.blocks(rule, branch_BT.shape, CPU)
    assert int(made.to_dense().sum()) == 9


@pytest.mark.parametrize("window", [None, 150])
@pytest.mark.parametrize("width", [128, 700])
def test_blocks_are_those_of_pytorch(width: int, window: int | None) -> None:
    branch_BT = torch.tensor([[0] * (width // 2) + [1] * (width // 4) + [2] * (width - width // 2 - width // 4)] * 2)
    branch_BT[1, width // 3 :] = -1
    position_BT = torch.arange(width).expand(2, -1)
    rule = tree_masks.sees(branch_BT, position_BT, window)
    ours, theirs = tree_masks.blocks(rule, branch_BT.shape, CPU), create_block_mask(rule, 2, None, width, width, "cpu")
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices", "q_num_blocks", "q_indices"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.shape == theirs.shape


def test_flex_is_refused_where_it_cannot_train(tmp_path: Path) -> None:
    model = tiny_model("stablelm")
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError) as refused:
        loading.check(config.Model(path=str(tmp_path), attention="flex", device="cpu"))
    lines = [str(problem) for problem in refused.value.problems]
    assert [line for line in lines if "needs a GPU" in line]
    assert [line for line in lines if "no `flex` for the family stablelm" in line]
