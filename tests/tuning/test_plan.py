"""Spaces against a config and its models: what is wrong is said before anything starts, all of it, with the fix."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import yaml

from raypipe.attribution.decoder import Decoder
from raypipe.attribution.engine import resolve_layers
from raypipe.attribution.layers import valid_layers
from raypipe.attribution.registry import METHODS
from raypipe.errors import InputError
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE
from raypipe.settings import config, configfile
from raypipe.settings.arms import masking_of
from tests.tiny_models import CONFIGS, tiny_loaded
from tests.tuning.demo import LAYER, RATIO, plans_of, space_of


def _refused(tmp_path: Path, text: str, *models: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(InputError) as refused:
        plans_of(space_of(tmp_path, text), *models, overrides=overrides)
    return [str(problem) for problem in refused.value.problems]


def test_every_problem_at_once_with_the_fix(tmp_path: Path) -> None:
    said = _refused(
        tmp_path,
        """
PARAM_SPACE = {
    "arms.decselfmask.masking.ratoi": tune.grid_search([0.1]),
    "arms.decselfmask.masking.ratio": tune.grid_search([0.2, 1.5]),
    "train.learning_rate": tune.loguniform(1e-4, 1e-2),
    "train.epochs": tune.choice([1.0, "two"]),
}""",
    )
    assert len(said) == 3, said
    assert "masking.ratoi" in said[0]
    assert "Did you mean 'ratio'?" in said[0]
    assert "1.5" in said[1]
    assert "'two'" in said[2]


def test_a_layer_that_a_model_lacks_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    text = f'PARAM_SPACE = {{"{LAYER}": tune.grid_search([0, 2, 7]), "{RATIO}": tune.grid_search([0.1, 0.2])}}'
    (said,) = _refused(tmp_path, text, "pretrain:llama")
    assert "layer 7" in said
    assert "0..3" in said
    assert "valid at 0..2" in said


def test_a_degenerate_layer_is_refused_for_the_method_that_cannot_read_it(tmp_path: Path) -> None:
    """The demo has 3 blocks: layer 2 acts through a normalisation alone, where the sum over the width is noise."""
    text = f'PARAM_SPACE = {{"{LAYER}": 2, "attribution.reduction": tune.grid_search(["l2", "sum"])}}'
    (said,) = _refused(tmp_path, text)
    assert "reduction sum is valid at 0..1" in said


def test_a_refused_layer_names_the_model(tmp_path: Path) -> None:
    said = _refused(
        tmp_path, f'PARAM_SPACE = {{"{LAYER}": tune.grid_search([1.0])}}', "pretrain:llama", "pretrain:qwen3"
    )
    assert any("of llama" in problem for problem in said)
    assert any("of qwen3" in problem for problem in said)


def test_fractions_that_meet_in_one_layer_are_tried_once(tmp_path: Path) -> None:
    (plan,) = plans_of(space_of(tmp_path, f'PARAM_SPACE = {{"{LAYER}": tune.grid_search([0.0, 0.1, 0.3, 0.6, 0.7])}}'))
    assert plan.params[LAYER] == {"grid_search": [0.0, 0.3, 0.6]}
    assert plan.n_trials == 3


def test_an_arm_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    said = _refused(tmp_path, 'PARAM_SPACE = {"arms.decselfmsk.masking.ratio": 0.2}')
    assert "Did you mean 'decselfmask'?" in said[0]


def test_which_arm_is_searched_must_be_clear(tmp_path: Path) -> None:
    """The demo masks one arm by relevance, and a space over epochs names none."""
    text = 'PARAM_SPACE = {"train.epochs": tune.choice([1.0])}'
    assert plans_of(space_of(tmp_path, text))[0].arm == "decselfmask"
    assert "must say which arm" in _refused(tmp_path, text, overrides=("arms.other.masking.ratio=0.3",))[0]
    (plan,) = plans_of(space_of(tmp_path, text + '\nARM = "random_word"'))
    assert plan.arm == "random_word"


def test_the_config_of_a_trial(tmp_path: Path) -> None:
    """One arm and those it copies its ratio from, on dev, whatever the config says; a layer as a number."""
    text = f'PARAM_SPACE = {{"{LAYER}": tune.grid_search([0.34])}}\nARM = "random_word"'
    (plan,) = plans_of(space_of(tmp_path, text), overrides=("evaluation.split=test", "tune.max_unlabelled=70"))
    settings = plan.config({LAYER: 0.34}, "trial", "runs")
    assert settings.evaluation.split == "dev"
    assert settings.attribution.layer == 1
    assert settings.attribution.keep == "all"
    assert settings.data.max_unlabelled == 70
    assert list(settings.arms) == ["random_word", "decselfmask"]
    best = plan.best({LAYER: 0.34}, "best")
    assert best.evaluation.split == "test"
    assert best.data.max_unlabelled is None
    assert set(best.arms) == {"sft", "random_init", "random_word", "decselfmask"}
    (tmp_path / "best.yaml").write_text(configfile.dump(best))
    assert configfile.load(tmp_path / "best.yaml") == best


def test_an_arm_masks_in_a_trial_as_in_the_whole_run(tmp_path: Path) -> None:
    """Notes have a plan per task if any arm needs relevance, so a trial without the other arms needs it, too."""
    text = 'PARAM_SPACE = {"train.epochs": tune.choice([1.0])}\nARM = "random_word"'
    own_ratio = ("arms.random_word.masking={strategy: random_word, ratio: 0.2}",)
    (plan,) = plans_of(space_of(tmp_path, text), overrides=own_ratio)
    trial, whole = plan.config({}, "trial", "runs"), plan.best({}, "best")
    assert trial.arms["random_word"] == whole.arms["random_word"]
    assert needs(masking_of(trial)) == needs(masking_of(whole)) == {RELEVANCE}
    none = (*own_ratio, "arms.decselfmask.masking={strategy: span}")
    (plan,) = plans_of(space_of(tmp_path, text), overrides=none)
    assert list(plan.config({}, "trial", "runs").arms) == ["random_word"]
    (plan,) = plans_of(space_of(tmp_path, text.replace("random_word", "sft")), overrides=own_ratio)
    assert list(plan.config({}, "trial", "runs").arms) == ["sft"], "masks nothing"
    alone = ("arms.decselfmask.attribution.method=kv_direct", "arms.random_word.masking={strategy: relevance}")
    (plan,) = plans_of(space_of(tmp_path, text.replace("random_word", "decselfmask")), overrides=alone)
    assert list(plan.config({}, "trial", "runs").arms) == ["decselfmask"], "a run of its own"


def test_a_profile_says_nothing_where_every_key_is_given(tmp_path: Path) -> None:
    """As in the config.yaml of a run."""
    space = 'PARAM_SPACE = {"arms.decselfmask.masking.profile": tune.grid_search(["raypipe", "paper"])}'
    (plan,) = plans_of(space_of(tmp_path, space))
    assert plan.n_trials == 2
    whole = yaml.safe_load(configfile.dump(plan.config({}, "trial", "runs")))["arms"]["decselfmask"]["masking"]
    given = tuple(f"arms.decselfmask.masking.{key}={json.dumps(value)}" for key, value in whole.items())
    (said,) = _refused(tmp_path, space, overrides=given)
    assert "PARAM_SPACE['arms.decselfmask.masking.profile']: changes nothing" in said


@pytest.mark.parametrize(
    ("text", "overrides", "key"),
    [
        (
            f'PARAM_SPACE = {{"{LAYER}": tune.grid_search([0, 1]), "{RATIO}": tune.uniform(0.1, 0.2)}}',
            ("arms.decselfmask.attribution.method=kv_direct", "arms.random_word.masking={strategy: random_word}"),
            LAYER,
        ),
        (
            f'PARAM_SPACE = {{"{RATIO}": tune.grid_search([0.1, 0.2]), "train.seed": 1}}\nARM = "random_word"',
            ("arms.random_word.masking={strategy: random_word}",),
            RATIO,
        ),
        (
            f'PARAM_SPACE = {{"{LAYER}": tune.choice([0, 1]), "train.seed": tune.choice([0, 1])}}',
            ("attribution.method=occlusion",),
            LAYER,
        ),
        (
            f'PARAM_SPACE = {{"train.epochs": tune.choice([1.0, 2.0]), "{RATIO}": tune.choice([0.1, 0.2])}}',
            ("arms.decselfmask.train={epochs: 3}",),
            "train.epochs",
        ),
    ],
)
def test_a_key_that_changes_no_trial_is_refused(
    tmp_path: Path, text: str, overrides: tuple[str, ...], key: str
) -> None:
    (said,) = _refused(tmp_path, text, overrides=overrides)
    assert f"PARAM_SPACE[{key!r}]: changes nothing" in said


def test_a_key_that_some_trials_read_is_none(tmp_path: Path) -> None:
    """The layer says nothing to occlusion, but to the other method."""
    text = (
        f'PARAM_SPACE = {{"{LAYER}": tune.choice([0, 1]), "attribution.method": tune.choice(["occlusion", "attnlrp"])}}'
    )
    assert len(plans_of(space_of(tmp_path, text))) == 1


def test_what_a_whole_run_asks_for_beside_its_arms_does_not_stop_a_search(tmp_path: Path) -> None:
    (plan,) = plans_of(
        space_of(tmp_path, f'PARAM_SPACE = {{"{RATIO}": tune.grid_search([0.1, 0.2])}}'),
        overrides=("evaluation={conformal: {alpha: 0.1}, embeddings: true}", "probe.arms=[sft]"),
    )
    evaluation = plan.config({}, "trial", "runs").evaluation
    assert (evaluation.conformal, evaluation.embeddings) == (None, False)
    assert plan.best({}, "best").evaluation.conformal is not None


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_valid_layers_are_those_that_the_engine_measures(family: str) -> None:
    decoder = Decoder(tiny_loaded(family))
    for name, reduction in product(METHODS, ("sum", "l2")):
        attribution = config.Attribution(method=name, reduction=reduction, layer="all")
        expected = valid_layers(attribution, decoder.depth)
        method = METHODS[name]
        measured = list(resolve_layers(attribution, method, decoder))
        if family == "olmo2":  # it normalises after its blocks: the check leaves out a layer that says something
            assert set(expected) <= set(measured) or method.reads(attribution) == "none"
            continue
        assert measured == (expected if method.reads(attribution) != "none" else [0])
