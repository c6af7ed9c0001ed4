"""Every recipe and every search space that is shipped loads against the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.settings import configfile
from raypipe.tuning import space
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import plans

RECIPES_FOLDER = Path(__file__).parents[1] / "jobs/configs"
RECIPES = sorted(p for p in RECIPES_FOLDER.glob("*.yaml") if ".tasks." not in p.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_DATA", "somewhere")
    monkeypatch.setenv("RAYPIPE_PRETRAINED", "somewhere")
    config = configfile.load(path)
    (tmp_path / "resolved.yaml").write_text(configfile.dump(config))
    assert configfile.load(tmp_path / "resolved.yaml") == config


def test_recipes_exist() -> None:
    assert {"demo", "demo_pretrained", "leaflets", "leaflets_full", "nubes_gemma", "paper"} <= {
        path.stem for path in RECIPES
    }


def test_the_recipe_of_the_paper_is_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/method.md, sections 5.2 to 5.5."""
    for name in ("RAYPIPE_DATA", "RAYPIPE_PRETRAINED"):
        monkeypatch.setenv(name, "somewhere")
    config = configfile.load(RECIPES_FOLDER / "paper.yaml")
    assert config.scorer.untuned
    assert (config.attribution.method, config.attribution.target) == ("attnlrp", "item_mid_max")
    assert "{mask}" in config.prompt.question
    assert "{options}" in config.prompt.question
    assert (config.train.lora, config.train.learning_rate, config.train.epochs) == (None, 4e-5, 1)
    assert config.finetune.lora is not None
    assert (config.finetune.lora.rank, config.finetune.lora.alpha, config.finetune.lora.dropout) == (32, 64, 0.05)
    assert (config.finetune.learning_rate, config.finetune.epochs) == (3e-4, 1)
    masking = config.arms["decselfmask"].masking
    assert masking is not None
    assert (masking.profile, masking.format, masking.prompt_loss) == ("paper", "single", 1.0)


SPACES = sorted((Path(__file__).parents[1] / "tune_spaces").glob("*.py"))


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_every_value_of_a_space_fits_the_config(path: Path) -> None:
    """On the demo, and on a deeper model of another family, with the demo's arms."""
    found = space.load(path)
    assert found.doc
    for overrides in ((), ("pretrain.layers=8", "pretrain.family=qwen3")):
        (plan,) = plans(found, backbones(configfile.written(RECIPES_FOLDER / "demo.yaml", overrides).value, []))
        assert plan.arm == "decselfmask"


def test_spaces_exist() -> None:
    assert {"smoke", "ratio_by_layer", "paper_vs_raypipe", "wide"} <= {path.stem for path in SPACES}
