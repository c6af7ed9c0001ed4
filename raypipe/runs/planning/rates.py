"""Arithmetic a second: stated, measured on this machine with the real code, or a share of its matrix peak.

What is measured is a few notes and a few optimiser steps, on a copy of the model in memory: the engine of `attribute`,
the scorer of `evaluate`, the loop of the trainings.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypipe.attribution import AttributionEngine
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from raypipe.runs.driver import Todo
from raypipe.runs.planning.figures import Rate
from raypipe.runs.planning.material import Material
from raypipe.runs.planning.work import attribution_flops, scoring, trained_model, training_of
from raypipe.settings import config
from raypipe.training import loop, lora
from raypipe.training.examples import Examples
from raypipe.training.throughput import Work, matrix_peak, training_flops

LONGEST_S = 30.0  # a measurement that would take longer, at a tenth of the matrix peak, is not made
NOTES, STEPS = 16, 6  # notes and optimiser steps that are measured, after one to warm up


@dataclass
class Rates:
    """The rate of each kind of step; `of` measures a kind when it is first needed."""

    fallback: Rate
    measure: Callable[[Todo, str], Rate | None] | None = None  # None: rates are stated
    measured: dict[str, Rate] = field(default_factory=dict)

    def of(self, t: Todo, kind: str) -> Rate:
        """The rate of one step. `kind`: training, attribution or scoring."""
        if self.measure is None:
            return self.fallback
        key = f"{t.name.split('/')[0]}, {kind}" if kind == "training" else kind
        if key not in self.measured:
            self.measured[key] = self.measure(t, kind) or self.fallback
        return self.measured[key]


def stated(peak: float, share: float) -> Rates:
    """An accelerator that is not here."""
    return Rates(Rate(peak * share, f"estimate: stated peak of {peak:.3g} FLOP/s at a share of {share:g}"))


def here(material: Material, share: float) -> Rates:
    """This machine: measured with the model, or with random weights of a model from scratch, else by its peak."""
    section = material.run.settings.model
    device = loading.device_of(section)
    peak = matrix_peak(device, loading.dtype_of(section, device))
    named = f"estimate: measured matrix peak of this machine ({peak:.3g} FLOP/s) at a stated share of {share:g}"
    fallback = Rate(peak * share, named)
    if material.model.weights is None:
        return Rates(fallback)
    stopwatch = _Stopwatch(material, device, peak)
    return Rates(fallback, stopwatch.measure)


class _Stopwatch:
    """Holds a model, and times it."""

    def __init__(self, material: Material, device: torch.device, peak: float) -> None:
        self.material, self.device, self.peak = material, device, peak
        self._loaded: Loaded | None = None

    def measure(self, t: Todo, kind: str) -> Rate | None:
        """The rate of one kind of step; None if it would take too long, or if there is nothing to measure with."""
        make = {"attribution": self._attribution, "scoring": self._scoring, "training": self._training}[kind]
        return make(t)

    def _model(self) -> Loaded:
        if self._loaded is None:
            weights = self.material.model.weights
            if isinstance(weights, config.Pretrain):
                model = loading.from_scratch(weights, self.material.model.tokenizer).to(self.device).eval()
                family = FAMILIES[self.material.model.family]
                self._loaded = Loaded(model, self.material.model.tokenizer, family, self.device)
            else:
                assert weights is not None  # noqa: S101 (`here` does not measure without weights)
                self._loaded = loading.load(weights)
        return self._loaded

    def _takes_too_long(self, flops: float) -> bool:
        return flops / (0.1 * self.peak) > LONGEST_S

    def _source(self, what: str) -> str:
        weights = "random weights" if isinstance(self.material.model.weights, config.Pretrain) else "the model"
        return f"measured on this machine ({self.device.type}) with {weights}: {what}"

    def _attribution(self, t: Todo) -> Rate | None:
        settings = t.run.settings
        notes = self.material.to_attribute(settings)[: NOTES + 1]
        per_note = attribution_flops(self.material, settings, notes)
        if len(notes) < 2 or (per_note and self._takes_too_long(per_note[0] * 2)):
            return None
        attribution = settings.attribution
        if attribution.keep == "all":
            attribution = attribution.model_copy(update={"layer": "all"})
        idf_V = np.ones(len(self.material.model.tokenizer), np.float32)  # how rare a token is takes no time
        engine = AttributionEngine(self._model(), attribution, settings.seed, idf_V)
        n, seconds = _timed(lambda some: engine.attribute(some), notes)
        flops = sum(per_note[1 : n + 1]) / seconds if per_note else 0.0
        return Rate(flops, self._source(f"{n} notes"), seconds / n)

    def _scoring(self, t: Todo) -> Rate | None:
        from raypipe.evaluation.scoring import LabelScorer

        notes = [note for split in ("test", "dev", "train") for note, _ in self.material.labelled(split)][: NOTES + 1]
        if len(notes) < 2 or self._takes_too_long(2 * scoring(self.material, notes[:1])[0]):
            return None
        scorer = LabelScorer(self._model(), t.run.settings.evaluation.batch_tokens)
        n, seconds = _timed(scorer.score, notes)
        return Rate(scoring(self.material, notes[1 : n + 1])[0] / seconds, self._source(f"{n} notes"))

    def _training(self, t: Todo) -> Rate | None:
        sampled, _, training = training_of(self.material, t)
        if not len(sampled):
            return None
        flops = self._flops_of_a_step(sampled, training)
        if self._takes_too_long(2 * flops):
            return None
        n_steps = max(1, min(STEPS, int(0.1 * LONGEST_S * self.peak / flops) - 1))
        some = {"max_steps": n_steps + 1, "epochs": n_steps + 1.0, "eval_every": None, "checkpoint_every": None}
        short = training.model_copy(update=some)
        return Rate(self._flops_a_second(sampled, short), self._source(f"{n_steps} optimiser steps"))

    def _flops_of_a_step(self, sampled: Examples, training: config.Training) -> float:
        length = sampled.length
        mean = Work(round(float(length.mean())), 0, round(float((length**2).mean())))
        return training_flops(trained_model(self.material, training), mean) * training.batch_rows

    def _to_train(self, training: config.Training) -> Any:
        """A copy to train, as the trainer prepares it."""
        model = copy.deepcopy(self._model().model).to("cpu", self.material.model.stored).requires_grad_(True)
        loading.set_dropout(model, training.dropout)
        adapted = lora.prepare(model, training, self.device)
        return model if adapted is None else adapted.get_base_model()

    def _flops_a_second(self, sampled: Examples, training: config.Training) -> float:
        """Of the steps after the first, in the loop that every training runs."""
        marks: list[tuple[float, int]] = []

        def mark(metrics: dict[str, Any]) -> dict[str, float]:
            marks.append((time.perf_counter(), metrics["tokens"]))
            return {}

        pad_id = self.material.model.tokenizer.pad_token_id
        with tempfile.TemporaryDirectory() as scratch:
            model, folder = self._to_train(training), Path(scratch)
            outcome = loop.fit(model, pad_id, sampled, training, folder, on_step=mark, device=self.device)
        seconds = marks[-1][0] - marks[0][0]
        after_the_first = 1 - marks[0][1] / marks[-1][1]
        return outcome.flops * after_the_first / max(seconds, 1e-9)


def _timed(work: Callable[[Sequence[Any]], Any], notes: Sequence[Any]) -> tuple[int, float]:
    """How many notes were worked on, and in how many seconds, after one to warm up; the last ones if time runs out."""
    began = time.perf_counter()
    work(notes[:1])
    first = time.perf_counter() - began
    n = max(1, min(len(notes) - 1, int(LONGEST_S / max(first, 1e-9))))
    began = time.perf_counter()
    work(notes[1 : n + 1])
    return n, time.perf_counter() - began


def seconds_of(rate: Rate, flops: float | None, n_notes: float) -> float | None:
    """Seconds of a step on one GPU; None if neither its arithmetic nor its time a note is there."""
    if flops is None:
        return None if rate.seconds_per_note is None else rate.seconds_per_note * n_notes
    return flops / rate.flops
