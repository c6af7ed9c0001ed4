"""How each training went: loss, learning rate and what dev notes say, by step, from the metrics that it left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.runs import driver
from raypipe.runs.folder import StepFolder
from raypipe.runs.run import Run
from raypipe.runs.steps import named

WORSE = 1.1  # times the dev loss of labels alone that is named: ours, not measured; a cost may hide below it
MAX_POINTS = 200  # of a curve; a training of 100,000 steps is drawn from the means of equal parts


@dataclass(frozen=True)
class Curve:
    """One training. Lists of equal length, but for the dev loss, which is measured now and then."""

    name: str  # of its step: "train/decselfmask"
    steps: tuple[int, ...]
    loss: tuple[float, ...]  # nats per weighted token
    learning_rate: tuple[float, ...]  # empty: of a version that did not write it
    dev: tuple[tuple[int, float], ...]  # step and dev loss
    dev_f1: tuple[tuple[int, float], ...] = ()  # step and macro F1 on dev, with tracking.dev_scores

    @property
    def stage(self) -> str:
        """pretrain, train (reconstruction) or finetune."""
        return self.name.partition("/")[0]

    @property
    def student(self) -> str:
        """Whose training it is; empty for the backbone's."""
        return self.name.partition("/")[2]


def curves(run: Run) -> Iterator[Curve]:
    """Of the finished trainings of a run, in the order of the steps; of an arm's repeats, the first."""
    for name in dict.fromkeys(driver.all_steps(run)):
        step = named(name)
        if step.kind.train and "@" not in name:
            folder = run.of(step.arm).step(name)
            if folder.done and (curve := _curve(name, folder)) is not None:
                yield curve


def undone(cells: Sequence[Run], reference: str) -> dict[str, str]:
    """A remark on arms whose students say less of dev labels than those of labels alone do, if there are any.

    By the dev loss after fine-tuning, mean over cells. Learning from notes should add to what a decoder knows; at a
    rate that is too high it costs that, and then arms differ by what they broke (docs/comparing.md).
    """
    settings = cells[0].settings
    has_it = reference in settings.arms and cells[0].is_labels_only(reference)
    alone = _dev_loss(cells, reference) if has_it else None
    if alone is None:
        return {}
    reconstructed = [arm for arm, own in settings.arms.items() if own.reconstructs]
    losses = {arm: loss for arm in reconstructed if (loss := _dev_loss(cells, arm)) is not None}
    worse = [f"{arm} {loss:.3f}" for arm, loss in losses.items() if loss > WORSE * alone]
    what = f"{', '.join(worse)}, {reference} {alone:.3f}: a lower train.learning_rate may keep what the decoder knew"
    return {"dev loss after learning from notes": what} if worse else {}


def _dev_loss(cells: Sequence[Run], arm: str) -> float | None:
    """Of the first student of each cell; None if one has none."""
    steps = [cell.of(arm).step(f"finetune/{cell.student_of(arm)}") for cell in cells]
    losses = [step.manifest.get("dev_loss") if step.done else None for step in steps]
    measured = [loss for loss in losses if loss is not None]
    return _mean(measured) if len(measured) == len(losses) else None


def _curve(name: str, folder: StepFolder) -> Curve | None:
    path = folder.path / "metrics.jsonl"
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not lines:
        return None
    size = -(-len(lines) // MAX_POINTS)
    parts = [lines[start : start + size] for start in range(0, len(lines), size)]
    has_rate = all("learning_rate" in line for line in lines)
    dev = {line["step"]: line["dev_loss"] for line in lines if "dev_loss" in line}
    last = folder.manifest.get("dev_loss")
    if last is not None:
        dev[lines[-1]["step"]] = last
    return Curve(
        name,
        tuple(part[-1]["step"] for part in parts),
        tuple(_mean([line["loss"] for line in part]) for part in parts),
        tuple(_mean([line["learning_rate"] for line in part]) for part in parts) if has_rate else (),
        tuple(sorted(dev.items())),
        tuple((line["step"], line["dev_macro_f1"]) for line in lines if "dev_macro_f1" in line),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
