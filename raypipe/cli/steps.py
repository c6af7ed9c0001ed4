"""The steps of a run, one by one, and a step that is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.app import Arm, ConfigPath, Overrides, Verify, app, next_after, opened
from raypipe.guard.terminal import say


def _make(command: str, config: Path, set_: Sequence[str] | None, arms: Sequence[str] | None = None) -> list[str]:
    """Make the steps that belong to a command; returns their names."""
    from raypipe.runs import driver

    with opened(config, set_) as run:
        return [name for _, name in driver.run_command(run, command, arms or ())]


@app.command()
def pretrain(config: ConfigPath, set_: Overrides = None) -> None:
    """Train a tokenizer and a small decoder from scratch."""
    _make("pretrain", config, set_)
    say(next_after("pretrain", config, set_))


@app.command()
def finetune(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Fine-tune the scorer on the labels; with --arm, the students of an arm."""
    _make("finetune", config, set_, arm)
    say(next_after("finetune --arm" if arm else "finetune", config, set_))


@app.command()
def attribute(config: ConfigPath, set_: Overrides = None) -> None:
    """Relevance of every word of the unlabelled notes, on all GPUs."""
    _make("attribute", config, set_)
    say(next_after("attribute", config, set_))


@app.command()
def faithfulness(config: ConfigPath, set_: Overrides = None) -> None:
    """Compare methods, targets and layers of attribution on labelled dev notes. Needs the scorer, not Ray."""
    from raypipe.findings.pages import faithfulness_page
    from raypipe.runs import driver

    with opened(config, set_) as run:
        driver.run_command(run, "faithfulness")
        say(faithfulness_page(run))
    say(next_after("faithfulness", config, set_))


@app.command()
def mask(config: ConfigPath, set_: Overrides = None) -> None:
    """Masking plans of all arms, from stored relevance or straight from attribution."""
    _make("mask", config, set_)
    say(next_after("mask", config, set_))


@app.command()
def train(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Reconstruction: students learn to fill in what was masked."""
    made = _make("train", config, set_, arm)
    say(next_after("train", config, set_, [name.removeprefix("train/") for name in made]))


@app.command()
def evaluate(config: ConfigPath, set_: Overrides = None, arm: Arm = None) -> None:
    """Score the labelled notes of the evaluation split with the students."""
    _make("evaluate", config, set_, arm)
    say(next_after("evaluate", config, set_))


@app.command()
def probe(config: ConfigPath, set_: Overrides = None, verify: Verify = False) -> None:
    """What can be read off every layer of the backbone and of the arms' students. Needs what `run` leaves.

    Of a comparison, the first seed's models.
    """
    from raypipe.findings.pages import probing_page
    from raypipe.runs import compare, driver, integrity
    from raypipe.runs.probing import probed_models

    with opened(config, set_, verify) as whole:
        run = compare.first(whole)
        driver.make(run, [f"probe/{model}" for model in probed_models(run)], "probe")
        with integrity.blamed(integrity.finished(run.folder / "probe")):
            say(probing_page(run))
    say(next_after("probe", config, set_))


@app.command()
def repair(step: Annotated[Path, typer.Argument(help="a step's folder, such as runs/demo/mask")]) -> None:
    """Delete what is damaged of a finished step, so that the same command as before makes that again and no more."""
    from raypipe.runs import folder, integrity, lock

    folder.refuse_links(step)
    with lock.held(lock.run_of(step)):
        for line in integrity.repair(step.resolve()):
            say(line)
