"""AttnLRP: parity with its authors' library, and the two properties that define it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raypipe.attribution import attnlrp, hooks
from raypipe.attribution.decoder import Decoder
from raypipe.errors import InputError
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from tests.attribution.cases import done, engine_of, notes_of, worst_error
from tests.fixtures.attnlrp_lxt import BEST, IDS, SECOND, model_of
from tests.tiny_models import tiny_loaded

STORED = json.loads((Path(__file__).parents[1] / "fixtures" / "attnlrp_lxt.json").read_text())
WITH_RULES = [name for name, family in FAMILIES.items() if family.rules is not None]


def test_families_without_rules_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="cohere; use grad_x_activation"):
        engine_of("cohere", method="attnlrp")


@pytest.mark.parametrize("family", WITH_RULES)
def test_equals_lxt(family: str) -> None:
    """The stored numbers are LXT 2.1's on transformers 4.51.3; tests/fixtures/attnlrp_lxt.py is what made them, with
    the command in its first lines. (LXT does not import on transformers 5.)"""
    decoder = Decoder(Loaded(model_of(family, "sdpa"), None, FAMILIES[family], torch.device("cpu")))
    with attnlrp.rules(decoder), hooks.cut(decoder.blocks, [0]) as hidden:
        logits = decoder.model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -1]
    z = logits[BEST] - logits[SECOND]
    (gradient,) = torch.autograd.grad(z, [hidden[0]])
    relevance = (hidden[0] * gradient).sum(-1)[0].detach().numpy()
    assert z.item() == pytest.approx(STORED[family]["z"], abs=1e-4)
    assert worst_error(relevance, np.asarray(STORED[family]["relevance"])) < 1e-4


@pytest.mark.parametrize("family", WITH_RULES)
def test_rules_change_gradients_but_not_values(family: str) -> None:
    notes = notes_of(2, 1)
    rules, plain = (done(engine_of(family, method=m).attribute(notes)) for m in ("attnlrp", "grad_x_activation"))
    for a, b in zip(rules, plain, strict=True):
        assert a.predicted_Q == b.predicted_Q
        assert np.allclose(a.margin_Q, b.margin_Q, atol=1e-4)
        assert worst_error(a.relevance_QKN, b.relevance_QKN) > 0.01


def test_model_is_left_as_it_was() -> None:
    engine, untouched = engine_of(method="attnlrp"), engine_of()
    notes = notes_of(2, 2)
    engine.attribute(notes)
    assert engine.decoder.model.config._attn_implementation == "sdpa"
    before, after = done(untouched.attribute(notes)), done(untouched.attribute(notes))
    assert np.array_equal(before[0].relevance_QKN, after[0].relevance_QKN)


def _linear(gated: bool) -> Decoder:
    """A Llama without its non-linear parts: attention that is uniform, and an MLP that adds nothing or a product."""
    loaded = tiny_loaded("llama")
    with torch.no_grad():
        for block in loaded.model.model.layers:
            block.self_attn.q_proj.weight.zero_()  # uniform attention: the softmax is a constant
            if not gated:
                block.mlp.down_proj.weight.zero_()
    return Decoder(loaded)


def _relevance(decoder: Decoder, with_rules: bool) -> tuple[torch.Tensor, torch.Tensor]:
    from contextlib import nullcontext

    with attnlrp.rules(decoder) if with_rules else nullcontext(), hooks.cut(decoder.blocks, [0]) as hidden:
        logits = decoder.model(input_ids=decoder.check_prompts(1), use_cache=False).logits[0, -1]
    z = logits[BEST] - logits[SECOND]
    (gradient,) = torch.autograd.grad(z, [hidden[0]])
    return z.detach(), (hidden[0] * gradient).sum().detach()


def test_conserves_where_nothing_but_the_value_path_is_left() -> None:
    """Uniform attention gives half of each block's attention relevance to a softmax that passes none on; with that
    factor undone (values whole) the sum over all positions is z exactly: norm, gate and product rules conserve."""
    for gated in (False, True):
        decoder = _linear(gated)
        for block in decoder.blocks:  # v gets half: double it back
            block.self_attn.v_proj.register_forward_hook(lambda m, a, out: 2 * out - out.detach())
        z, total = _relevance(decoder, with_rules=True)
        assert total.item() == pytest.approx(z.item(), rel=1e-4)


def test_equals_gradient_x_input_on_a_linear_model() -> None:
    """No block changes anything (both output projections are zero) and the last norm is undone: a linear model."""
    decoder = _linear(gated=False)
    with torch.no_grad():
        for block in decoder.blocks:
            block.self_attn.o_proj.weight.zero_()
    decoder.model.model.norm = torch.nn.Identity()
    (z, rules), (_, plain) = _relevance(decoder, True), _relevance(decoder, False)
    assert rules.item() == pytest.approx(plain.item(), rel=1e-5)
    assert rules.item() == pytest.approx(z.item(), rel=1e-4)


def test_conservation_error_is_reported() -> None:
    for result in done(engine_of(method="attnlrp").attribute(notes_of(2, 2))):
        assert np.isfinite(result.error_Q).all()
