"""Every recipe that is shipped loads against the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe import configfile

RECIPES = sorted(p for p in (Path(__file__).parents[2] / "jobs/configs").glob("*.yaml") if ".tasks." not in p.name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_DATA", "somewhere")
    config = configfile.load(path)
    (tmp_path / "resolved.yaml").write_text(configfile.dump(config))
    assert configfile.load(tmp_path / "resolved.yaml") == config


def test_recipes_exist() -> None:
    assert {"demo", "leaflets", "leaflets_full"} <= {path.stem for path in RECIPES}
