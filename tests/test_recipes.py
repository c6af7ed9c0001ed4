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
    config = configfile.load(path)
    (tmp_path / "resolved.yaml").write_text(configfile.dump(config))
    assert configfile.load(tmp_path / "resolved.yaml") == config


def test_recipes_exist() -> None:
    assert {"demo", "leaflets", "leaflets_full"} <= {path.stem for path in RECIPES}


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
