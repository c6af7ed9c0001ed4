"""What a run read and learned from, and what each of its steps cost."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raypipe import rows
from raypipe.runs import integrity, making
from raypipe.runs.folder import StepFolder
from raypipe.runs.run import Run


@dataclass(frozen=True)
class Material:
    """What one arm was trained on. None: not applicable."""

    arm: str
    masking_ratio: float | None = None  # realised: hidden eligible words / eligible words
    planned_words: int | None = None  # that its masks hide, whether or not so many steps reach them
    weighted_tokens: int | None = None  # with a loss, over all steps: masks, prompts and labels, as far as they count
    read_tokens: int | None = None  # all tokens, over all steps
    optimiser_steps: int | None = None


@dataclass(frozen=True)
class StepTime:
    """Wall time of one step of the run."""

    name: str
    seconds: float
    detail: str = ""  # "5,310 tokens/s"


def learned_from(cells: Sequence[Run]) -> Iterator[Material]:
    """What each arm learned from, mean over cells."""
    masks = [cell.of(arm).step("mask") for cell in cells for arm in cell.settings.arms]
    planned = [making.planned(step) for step in {step.path: step for step in masks if step.is_readable}.values()]
    for arm in cells[0].settings.arms:
        if not cells[0].reconstructs(arm):
            continue
        steps = [cell.of(arm).step(f"train/{arm}") for cell in cells]
        facts = [step.manifest for step in steps if step.done]
        plans = [of_arms[arm] for of_arms in planned if arm in of_arms]
        yield Material(
            arm,
            masking_ratio=float(np.mean([p.ratio for p in plans])) if plans else None,
            planned_words=mean([p.n_masked for p in plans]),
            weighted_tokens=mean([f["target_tokens"] for f in facts]),
            read_tokens=mean([f["tokens"] for f in facts]),
            optimiser_steps=mean([f["steps"] for f in facts]),
        )


def masks_of(run: Run) -> StepFolder:
    """The step that read the unlabelled notes: of an arm that has relevance of its own where all that mask have."""
    steps = [each.step("mask") for each in (run, *run.all_variants())]
    return next((step for step in steps if step.is_readable), steps[0])


def mean(counts: Sequence[int]) -> int | None:
    """The mean, rounded; None of nothing."""
    return round(float(np.mean(counts))) if counts else None


def step_times(run: Run) -> Iterator[StepTime]:
    """Time of the finished steps, those of cells and repeats added up; a search and canaries have their own pages."""
    seconds: dict[str, float] = defaultdict(float)
    at_peak: dict[str, float] = defaultdict(float)  # seconds that the work would take at the cards' matrix peak
    tokens: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for manifest in sorted(run.folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime):
        name = str(manifest.parent.relative_to(run.folder))
        if name.startswith(("tune/", "canaries/")):
            continue
        facts = integrity.read_json(manifest)
        name = re.sub(r"^cells/[^/]+/(choose/[^/]+/)?|@\d+$", "", name)
        seconds[name] += facts["seconds"]
        tokens[name] += facts.get("tokens", 0)
        at_peak[name] += facts["seconds"] * (facts.get("peak_fraction") or 0.0)
        times[name] += 1
    for name, total in seconds.items():
        rate = f"{tokens[name] / max(total, 1e-9):,.0f} tokens/s" if tokens[name] else ""
        share = f"{at_peak[name] / total:.0%} of the measured bfloat16 peak" if at_peak[name] else ""
        often = f"{times[name]} times" if times[name] > 1 else ""
        yield StepTime(name, total, ", ".join(part for part in (rate, share, often) if part))


def counts(run: Run) -> dict[str, int]:
    """Tasks, labels, notes and tokens that the run read."""
    of_run = {"tasks": len(run.corpus.tasks), "labels": len(run.corpus.labels)}
    masks = masks_of(run)
    if masks.is_readable:
        tokens = rows.read(masks.data, columns=["n_tokens", "n_cut_tokens"])
        of_run |= {"notes read": len(tokens), "held out": errors(run).get("HELD_OUT", 0)}
        for name, column in (("tokens attributed", "n_tokens"), ("tokens cut", "n_cut_tokens")):
            of_run[name] = int(np.nansum(tokens[column].to_numpy(zero_copy_only=False).astype(float)))
        of_run["tokens of these notes"] = of_run["tokens attributed"] + of_run["tokens cut"]
    return of_run


def errors(run: Run) -> dict[str, int]:
    """Notes that were not masked, by code."""
    masks = masks_of(run)
    return dict(masks.manifest["errors"]) if masks.is_readable else {}
