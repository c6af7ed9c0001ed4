"""Each thing that would go wrong is said with the setting that helps; where nothing would, nothing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from raypipe.runs.planning.advice import advice
from raypipe.runs.planning.figures import Corpus, Interval, Memory, OnGpus, Stage, Step
from tests.small_run import settings

CORPUS = Corpus(10_000, 0, 10_000, False, {"train": 100}, 512, Interval(1.0, 1.0, 1.0), 0.0, "", 12, 2.0, 0.0, None)
STREAM = Step("mask", "attribution", rows=10_000, flops=1.0, shards=400)
TRAINING = Step("train/decselfmask", "training", rows=100, flops=1.0, optimiser_steps=10, workers=8)


def _said(*steps: Step, gpus: int = 8, corpus: Corpus = CORPUS, seconds: float = 1e6, **changes: Any) -> str:
    memory, limit = changes.pop("memory", ()), changes.pop("limit", None)
    host_bytes = changes.pop("host_bytes", 0.0)
    given = {"resources__ray": True, "resources__training_workers": 8, "resources__no_progress_timeout_s": 10**9}
    of_run = settings(Path("."), **(given | changes))
    stages = [Stage(step.name, seconds, "") for step in steps]
    on_gpus = [OnGpus(gpus, 1.0, 1.0, 1.0, 1.0)]
    return "\n".join(advice(of_run, corpus, steps, stages, on_gpus, memory, limit, host_bytes))


def test_a_job_that_fits_is_not_commented_on() -> None:
    assert _said(STREAM, TRAINING) == ""


def test_too_few_blocks() -> None:
    said = _said(replace(STREAM, shards=40), gpus=64)
    assert "fewer than 64 GPUs: set resources.rows_per_block to 39 or less" in said


def test_blocks_that_take_longer_than_ray_waits() -> None:
    limit = {"resources__no_progress_timeout_s": 900}
    said = _said(STREAM, seconds=40_000, **limit)
    assert said.startswith("mask: a block of 256 notes takes 17 minutes, and Ray ends a stream without one for 15: set")
    assert said.endswith("resources.rows_per_block to 112 or less")
    assert _said(STREAM, seconds=10_000, **limit) == ""
    assert _said(STREAM, gpus=1, seconds=40_000, resources__ray=False, **limit) == ""


def test_fewer_actors_and_workers_than_gpus() -> None:
    said = _said(STREAM, replace(TRAINING, workers=1), resources__attribution_actors=2, resources__training_workers=1)
    assert "resources.attribution_actors is 2" in said
    assert "trainings use 1 of 8 GPUs: set resources.training_workers" in said


def test_one_process_for_many_gpus() -> None:
    assert "Set it to true" in _said(STREAM, resources__ray=False)
    few = replace(STREAM, shards=1)
    assert "resources.rows_per_block" in _said(few, gpus=1)
    assert _said(few, gpus=1, resources__ray=False) == "", "one process reads one block after the other"


def test_masking_that_is_slower_than_the_gpus() -> None:
    slow = replace(STREAM, cpu_seconds=4e6)
    assert "raypipe attribute" in _said(slow, seconds=1e6)
    assert _said(slow, seconds=1e8) == ""


def test_memory_that_is_too_small() -> None:
    held = Memory("train (all weights)", {"weights": 4e9, "gradients": 4e9, "optimiser": 8e9, "activations": 30e9})
    said = _said(STREAM, memory=[held], limit=24e9)
    assert "46 GB do not fit 24 GB" in said
    assert "train.lora" in said
    assert "train.gradient_checkpointing" in said
    assert _said(STREAM, memory=[held], limit=80e9) == ""


def test_a_float32_copy_that_does_not_fit_stops_nothing() -> None:
    held = Memory("attribution (kv_direct)", {"weights": 16e9, "activations": 1e9, "float32 copy, if it fits": 32e9})
    assert "borderline answers" in _said(STREAM, memory=[held], limit=24e9)


def test_notes_that_are_cut_or_cannot_be_read() -> None:
    assert "prompt.max_tokens" in _said(STREAM, corpus=replace(CORPUS, truncated=0.2))
    assert "max_error_rate" in _said(STREAM, corpus=replace(CORPUS, unreadable=5_000))


def test_rows_that_fill_the_memory_of_a_machine() -> None:
    assert "attribution.tasks_per_note" in _said(STREAM, host_bytes=1e12)


def test_what_is_not_counted_is_said() -> None:
    assert "not in the sums" in _said(replace(STREAM, flops=None, remark="passes are not counted"))
