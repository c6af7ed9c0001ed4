"""Every recipe and every search space that is shipped loads against the config."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from raypipe import configfile
from raypipe.errors import InputError

RECIPES_FOLDER = Path(__file__).parents[2] / "jobs/configs"
RECIPES = sorted(p for p in RECIPES_FOLDER.glob("*.yaml") if ".tasks." not in p.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_DATA", "somewhere")
    config = configfile.load(path)
    (tmp_path / "resolved.yaml").write_text(configfile.dump(config))
    assert configfile.load(tmp_path / "resolved.yaml") == config


def test_recipes_exist() -> None:
    assert {"demo", "leaflets", "leaflets_full"} <= {path.stem for path in RECIPES}


SPACES = sorted((Path(__file__).parents[2] / "tune_spaces").glob("*.py"))


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_every_value_of_a_space_fits_the_config(path: Path) -> None:
    """Every dotted key exists, and the demo's config takes every value of it."""
    space = runpy.run_path(str(path))
    assert space["PARAM_SPACE"]
    for key, sampler in space["PARAM_SPACE"].items():
        for value in sampler["grid_search"] if isinstance(sampler, dict) else [sampler.sample()]:
            configfile.load(RECIPES_FOLDER / "demo.yaml", [f"{key}={value}"])
    with pytest.raises(InputError, match="masking"):
        configfile.load(RECIPES_FOLDER / "demo.yaml", ["arms.decselfmask.masking.ratios=0.1"])
