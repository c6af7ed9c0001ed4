"""What one worker runs: the only training loop of the project. Plain torch; it runs without Ray.

The loss of a step is  sum(w * cross-entropy) / sum(w)  over all rows of the step, on all workers and in all
micro-batches: a short example is worth its tokens, however the step is cut. Dropout is seeded by the
step, so a resumed run repeats the straight one without saving random states.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raypipe.errors import InputError, Problem
from raypipe.models import tree
from raypipe.models.loading import without_renamed
from raypipe.records import replacing
from raypipe.settings.config import Training
from raypipe.training import checkpoint, schedule
from raypipe.training.checkpoint import Progress
from raypipe.training.examples import Examples
from raypipe.training.loss import WeightedLoss, autocast, batch_of
from raypipe.training.parallel import Replicas, Shards, distribute, rank_and_world, sum_over_workers, whole
from raypipe.training.schedule import Indices
from raypipe.training.throughput import Work, matrix_peak, training_flops, work_of

DIVERGED = "diverged"  # a file in the folder of a training whose loss or gradient became no number: it says where


@dataclass(frozen=True)
class Outcome:
    """What a finished training reports."""

    steps: int
    loss: float  # of the last step, nats per weighted token
    dev_loss: float | None
    tokens: int  # real tokens processed, padding excluded
    target_tokens: int  # tokens with a loss weight
    seconds: float  # of all attempts, without the steps that a lost worker made twice
    flops: float  # model FLOPs (throughput.py)
    peak_fraction: float | None  # of the workers' measured bfloat16 matrix peak; None on a CPU


def fit(
    model: Any,
    pad_id: int,
    examples: Examples,
    training: Training,
    folder: Path,
    dev: Examples | None = None,
    on_step: Callable[[dict[str, Any]], dict[str, float]] = lambda metrics: {},
    device: torch.device | None = None,
    sharding: str = "ddp",
) -> Outcome:
    """Train `model` in place on `examples`; metrics and checkpoints go to `folder`.

    `on_step` hears of every optimiser step, and what it returns is added to the step's metrics.
    Under torch.distributed every worker calls this with the same arguments. Goes on from the checkpoint in `folder`
    if there is one, which may be of another number of workers. `device`: where to train; None: where the model is.
    """
    plan, epochs_at = [], {}
    for n_epochs, steps in schedule.epochs(examples.length, examples.draw, training):
        plan += steps
        epochs_at[len(plan)] = n_epochs
    if not plan:
        raise InputError([Problem(str(folder), "there is nothing to learn from: no training rows")])
    if (folder / DIVERGED).exists():  # Ray Train tries again what would end in the same way
        raise InputError([Problem(str(folder), (folder / DIVERGED).read_text())])
    rank, world = rank_and_world()
    device = device or next(model.parameters()).device
    _checkpoint_activations(model, training)
    parallel = distribute(model, sharding, device)
    trained = {name: p for name, p in parallel.model.named_parameters() if p.requires_grad}
    optimizer = _optimizer(trained, training)
    done = checkpoint.restore(folder / "checkpoint", trained, optimizer)
    log = _Log(folder, enabled=rank == 0)
    log.forget_after(done.step)
    evaluate = partial(mean_loss, parallel.core, pad_id, training=training)
    began, loss = time.perf_counter() - done.seconds, log.last_loss()
    work = sum((work_of(examples, rows) for rows in plan[: done.step]), Work())
    parallel.loss.train()
    for step in range(done.step, len(plan)):
        torch.manual_seed(hash((training.seed, step, rank)))  # dropout; ints hash the same in every process
        rate = training.learning_rate * schedule.learning_rate_factor(step, len(plan), training.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _step(parallel, pad_id, examples, plan[step], training, device)
        norm = float(whole(nn.utils.clip_grad_norm_(trained.values(), training.clip)))
        if not (math.isfinite(loss) and math.isfinite(norm)):  # such weights must not pass for a student
            what = f"the training diverged at step {step + 1} of {len(plan)}: lower its learning_rate"
            (folder / DIVERGED).write_text(what)
            raise InputError([Problem(str(folder), what)])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        work += work_of(examples, plan[step])
        metrics = {"step": step + 1, "steps": len(plan), "loss": loss, "gradient_norm": norm}
        metrics |= {"learning_rate": rate, "seconds": round(time.perf_counter() - began, 3), "tokens": work.tokens}
        if step + 1 in epochs_at:
            metrics["epoch"] = epochs_at[step + 1]
        if dev is not None and training.eval_every and (step + 1) % training.eval_every == 0:
            metrics["dev_loss"] = evaluate(examples=dev)
        log.write(metrics | on_step(metrics))
        if training.checkpoint_every and (step + 1) % training.checkpoint_every == 0:
            reached = Progress(step + 1, time.perf_counter() - began)
            checkpoint.save(folder / "checkpoint", trained, optimizer, reached, is_first=rank == 0)
    dev_loss = evaluate(examples=dev) if dev is not None and len(dev) else None
    seconds, flops = time.perf_counter() - began, training_flops(parallel.model, work)
    parallel.finish()
    model.eval()
    peak = world * matrix_peak(device, torch.bfloat16) if device.type == "cuda" else None
    fraction = flops / seconds / peak if peak else None
    return Outcome(len(plan), loss, dev_loss, work.tokens, work.targets, seconds, flops, fraction)


def _step(
    parallel: Replicas | Shards,
    pad_id: int,
    examples: Examples,
    rows: Indices,
    training: Training,
    device: torch.device,
) -> float:
    """Forward and backward of one optimiser step; returns its loss over all workers."""
    rank, world = rank_and_world()
    total_weight = examples.total_weight_of(rows)
    batches = schedule.passes_of(rows, examples.length, rank, world, training.micro_batch_tokens, device.type)
    summed = torch.zeros((), device=device)
    for index, batch in enumerate(batches):
        with parallel.accumulate(is_last=index == len(batches) - 1):
            with autocast(training, device):
                loss = _loss(parallel.loss, pad_id, examples, batch, rows, device)
            torch.autograd.backward(loss * world / total_weight)  # data-parallel training averages over workers
        summed += loss.detach()
    return float(sum_over_workers(summed)) / total_weight


def _loss(
    module: nn.Module, pad_id: int, examples: Examples, batch: Indices, rows: Indices, device: torch.device
) -> torch.Tensor:
    """Summed loss of a micro-batch. An empty one takes part with one of the step's rows that weighs nothing."""
    trees, weight_BT = batch_of(examples, batch if len(batch) else rows[:1], pad_id, device)
    total: torch.Tensor = module(trees, weight_BT if len(batch) else weight_BT * 0)
    return total


@torch.no_grad()
def mean_loss(core: WeightedLoss, pad_id: int, examples: Examples, training: Training) -> float:
    """Weighted mean loss over all rows, nats per weighted token. Workers share the rows."""
    rank, world = rank_and_world()
    was_training, device = core.training, next(core.parameters()).device
    core.eval()
    every_row = np.argsort(examples.length, kind="stable")  # an empty batch takes the shortest
    loss = torch.zeros((), dtype=torch.float64, device=device)
    max_tokens = training.micro_batch_tokens
    for batch in schedule.passes_of(every_row, examples.length, rank, world, max_tokens, device.type):
        with autocast(training, device):
            loss += _loss(core, pad_id, examples, batch, every_row, device)
    core.train(was_training)
    return float(sum_over_workers(loss)) / max(examples.total_weight_of(every_row), 1e-12)


def _checkpoint_activations(model: Any, training: Training) -> None:
    with without_renamed():  # the oldest version that we take has the old names alone
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        elif tree.computes_blocks_twice(model):  # by the training before
            model.gradient_checkpointing_disable()


def _optimizer(trained: checkpoint.Named, training: Training) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in trained.values() if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trained.values() if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas, fused=True)


class _Log:
    """metrics.jsonl: one line per step, written by the first worker."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self.enabled = enabled
        if enabled:
            folder.mkdir(parents=True, exist_ok=True)

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run is about to repeat, and one that a kill cut short."""
        if self.enabled and self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
            before = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            with replacing(self.path) as fresh:
                fresh.write_text("".join(before))

    def last_loss(self) -> float:
        """Of the step that a resumed run goes on from, which may have been the last."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return float(json.loads(lines[-1])["loss"]) if lines else float("nan")

    def write(self, metrics: dict[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
