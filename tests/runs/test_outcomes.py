"""Each step ends with a line on what it left, also where it was done before; commands end with the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raypipe import cli
from raypipe.runs import driver, outcomes
from raypipe.runs.run import Run
from raypipe.settings import configfile
from tests.small_run import settings


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run whose notes are longer than its context."""
    folder = tmp_path_factory.mktemp("runs")
    written = settings(folder, prompt__max_tokens=110).model_dump(mode="json", exclude_defaults=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(written))
    return folder / "small.yaml"


def test_steps_say_what_came_out_and_what_was_cut(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["run", "--config", str(config)], standalone_mode=False)
    said = capsys.readouterr().out
    first = said.splitlines()[0]
    assert first.partition("] ")[2].startswith("corpus: ")
    assert "(was done before)" not in said, "what this command made was not done before"
    assert "mask: 54 of " in said
    assert " held out" in said
    cut = next(line for line in said.splitlines() if "] mask: 54" in line)
    assert " %) tokens cut: their notes are longer than prompt.max_tokens allows" in cut
    assert cut.endswith(str(config.parent / "small/mask"))
    assert "evaluate/decselfmask: 144 answers; macro F1 " in said
    assert "train/decselfmask: 2 steps on " in said
    assert said.splitlines()[-1] == f"next: raypipe probe --config {config}"

    cli.app(["run", "--config", str(config)], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[0].endswith(f"{first.partition('] ')[2]} (was done before)")

    cli.app(["mask", "--config", str(config), "--set", "seed=0"], standalone_mode=False)
    again = capsys.readouterr().out.splitlines()
    assert again[0].endswith(f"{cut.partition('] ')[2]} (was done before)")
    assert again[1:] == [f"next: raypipe train --config {config} --set seed=0"]


def test_every_kind_of_outcome_is_one_line(config: Path) -> None:
    run = Run(configfile.load(config))
    names = [*driver.shared_steps(run), *(name for arm in run.settings.arms for name in driver.steps_of(run, arm))]
    done = [name for name in names if run.is_done(name)]
    assert {name.partition("/")[0] for name in done} >= {"corpus", "pretrain", "mask", "train", "finetune", "evaluate"}
    for name in done:
        line = outcomes.line(run, name)
        assert line.startswith(f"{name}: ")
        assert "\n" not in line


def test_a_path_is_shown_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcomes.shown(tmp_path / "runs/demo/mask") == "runs/demo/mask"
    assert outcomes.shown(Path("/elsewhere/mask")) == "/elsewhere/mask"
