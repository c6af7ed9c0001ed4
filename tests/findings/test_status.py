"""Where runs stand, from their manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.findings.status import overview, status
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings import configfile
from tests.small_run import settings

CONFIG = Path("my.yaml")


def test_a_run_step_by_step(tmp_path: Path) -> None:
    run = Run(settings(tmp_path))
    before = status(run, CONFIG)
    assert "corpus           -" in before
    assert "11 steps are missing, corpus first" in before
    assert before.endswith("next: raypipe run --config my.yaml")
    assert not list(tmp_path.iterdir()), "looking writes nothing"

    driver.make(run.open(), ["finetune/scorer"])
    half = status(run, CONFIG)
    assert "finetune/scorer  finished, " in half
    assert "mask             -" in half
    assert "sft              0 of 1 steps; missing: evaluate/scorer" in half
    assert "decselfmask      0 of 3 steps; missing: train/decselfmask, finetune/decselfmask" in half
    assert "6 steps are missing, mask first" in half

    other = Run(settings(tmp_path, finetune__learning_rate=0.5))
    assert "finetune/scorer  made with other settings" in status(other, CONFIG)
    assert overview(tmp_path) == "small  5 of 11 steps finished, no report"


def test_a_folder_that_holds_no_run_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        overview(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text("gone: 1")
    assert "old  cannot be read: " in overview(tmp_path)


def test_a_run_is_named_by_its_folder_wherever_it_lies(tmp_path: Path) -> None:
    run = Run(settings(tmp_path / "here")).open()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = configfile.load(tmp_path / "there" / "small")
    assert (moved.runs, moved.name) == (str(tmp_path / "there"), "small")
    assert moved.model_copy(update={"runs": run.settings.runs}) == run.settings
    with pytest.raises(InputError, match="a folder without config"):
        configfile.load(tmp_path)
