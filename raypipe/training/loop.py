"""What one worker runs: the only training loop of the project. Plain torch; it runs without Ray.

The loss of a step is  sum(w * cross-entropy) / sum(w)  over all rows of the step, on all workers and in all
micro-batches: a short example is worth its tokens, however the step is cut (methods 1.7). Dropout is seeded by the
step, so a resumed run repeats the straight one without saving random states.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from raypipe.config import Lora, Training
from raypipe.errors import InputError, Problem
from raypipe.models import tree
from raypipe.training import schedule
from raypipe.training.examples import Examples
from raypipe.training.schedule import Indices

# Positions whose logits exist at the same time; the rest is recomputed in the backward pass.
LOGIT_ROWS = 4096


class WeightedLoss(nn.Module):
    """The decoder with its loss: what data-parallel training wraps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, trees: tree.Trees, weight_BT: Tensor) -> Tensor:
        """Sum of w * cross-entropy over the tokens with a weight, nats."""
        row, column = weight_BT.nonzero(as_tuple=True)
        hidden = tree.hidden_states(self.model, trees)[row, trees.source_BT[row, column]]
        target, weight = trees.input_ids_BT[row, column], weight_BT[row, column]
        total = hidden.new_zeros((), dtype=torch.float32)
        for part in range(0, len(target), LOGIT_ROWS):
            some = slice(part, part + LOGIT_ROWS)
            if len(target) > LOGIT_ROWS and torch.is_grad_enabled():
                total = total + checkpoint(self._loss, hidden[some], target[some], weight[some], use_reentrant=False)
            else:
                total = total + self._loss(hidden[some], target[some], weight[some])
        return total

    def _loss(self, hidden_ND: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        return (cross_entropy(tree.logits(self.model, hidden_ND), target_N, reduction="none") * weight_N).sum()


@dataclass(frozen=True)
class Outcome:
    """What a finished stage reports."""

    steps: int
    loss: float  # of the last step, nats per weighted token
    dev_loss: float | None
    tokens: int  # real tokens processed, padding excluded
    target_tokens: int  # tokens with a loss weight
    seconds: float


def fit(
    model: Any,
    pad_id: int,
    examples: Examples,
    training: Training,
    folder: Path,
    dev: Examples | None = None,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> Outcome:
    """Train `model` in place on `examples`; metrics and checkpoints go to `folder`.

    Under torch.distributed every worker calls this with the same arguments. Goes on from the checkpoint in `folder`
    if there is one.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    device = next(model.parameters()).device
    plan = schedule.steps(examples.length, examples.draw, training)
    core = WeightedLoss(model)
    parallel: nn.Module = nn.parallel.DistributedDataParallel(core) if world > 1 else core
    optimizer = _optimizer(model, training)
    log = _Log(folder, enabled=rank == 0)
    done = _restore(folder / "checkpoint", model, optimizer)
    log.forget_after(done)
    if not plan:
        raise InputError([Problem(str(folder), "there is nothing to learn from: no training rows")])
    began, loss = time.perf_counter(), float("nan")
    tokens, targets = (sum(_size(examples, rows)[i] for rows in plan[:done]) for i in (0, 1))
    model.train()
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
    for step in range(done, len(plan)):
        torch.manual_seed(hash((training.seed, step, rank)))  # dropout; ints hash the same in every process
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule.learning_rate_factor(step, len(plan), training.warmup)
        loss = _step(parallel, pad_id, examples, plan[step], training, device, rank, world)
        norm = nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        more_tokens, more_targets = _size(examples, plan[step])
        tokens, targets = tokens + more_tokens, targets + more_targets
        metrics = {"step": step + 1, "steps": len(plan), "loss": loss, "gradient_norm": float(norm)}
        metrics |= {"seconds": round(time.perf_counter() - began, 3), "tokens": tokens}
        if dev is not None and training.eval_every and (step + 1) % training.eval_every == 0:
            metrics["dev_loss"] = mean_loss(model, pad_id, dev, training)
        log.write(metrics)
        on_step(metrics)
        if training.checkpoint_every and (step + 1) % training.checkpoint_every == 0 and rank == 0:
            _save(folder / "checkpoint", model, optimizer, step + 1)
    model.eval()
    dev_loss = mean_loss(model, pad_id, dev, training) if dev is not None and len(dev) else None
    return Outcome(len(plan), loss, dev_loss, tokens, targets, time.perf_counter() - began)


def _size(examples: Examples, rows: Indices) -> tuple[int, int]:
    """Tokens of some rows, and those of them that have a loss weight."""
    return int(examples.length[rows].sum()), sum(int((examples.row(int(row))[1] > 0).sum()) for row in rows)


def _step(
    parallel: nn.Module,
    pad_id: int,
    examples: Examples,
    rows: Indices,
    training: Training,
    device: torch.device,
    rank: int,
    world: int,
) -> float:
    """Forward and backward of one optimiser step; returns its loss over all workers."""
    total_weight = examples.total_weight_of(rows)
    mine = schedule.share_of(rows, examples.length, rank, world)
    batches = list(schedule.micro_batches(mine, examples.length, training.micro_batch_tokens)) or [rows[:0]]
    summed = torch.zeros((), device=device)
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        wait = parallel.no_sync() if world > 1 and not last else nullcontext()  # type: ignore[operator]
        with wait, _autocast(training, device):
            # a worker without rows in this step still takes part, with a row of weight zero
            loss = parallel(*batch_of(examples, batch if len(batch) else rows[:1], pad_id, device, idle=not len(batch)))
            (loss * world / total_weight).backward()  # data-parallel training averages over workers
        summed += loss.detach()
    if world > 1:
        dist.all_reduce(summed)
    return float(summed) / total_weight


def batch_of(
    examples: Examples, rows: Indices, pad_id: int, device: torch.device, idle: bool = False
) -> tuple[tree.Trees, Tensor]:
    """Rows as a padded batch and their loss weights [B, T]."""
    parts = [examples.row(int(row)) for row in rows]
    trees = tree.collate([(ids, branch) for ids, _, branch in parts], pad_id, device)
    weight = torch.zeros(trees.input_ids_BT.shape, device=device)
    for index, (_, weight_T, _) in enumerate(parts):
        weight[index, : len(weight_T)] = torch.tensor(weight_T, device=device)
    return trees, weight * 0 + (weight > 0) * 1e-30 if idle else weight


@torch.no_grad()
def mean_loss(model: Any, pad_id: int, examples: Examples, training: Training) -> float:
    """Weighted mean loss over all rows, nats per weighted token."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    loss, total = 0.0, 0.0
    every_row = torch.arange(len(examples)).numpy()
    for batch in schedule.micro_batches(every_row, examples.length, training.micro_batch_tokens):
        with _autocast(training, device):
            loss += float(WeightedLoss(model)(*batch_of(examples, batch, pad_id, device)))
        total += examples.total_weight_of(batch)
    model.train(was_training)
    return loss / max(total, 1e-12)


def add_lora(model: Any, lora: Lora) -> Any:
    """The model with LoRA adapters on all linear layers but the head; only they are trainable."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def _autocast(training: Training, device: torch.device) -> Any:
    wanted = training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()


def _optimizer(model: Any, training: Training) -> torch.optim.AdamW:
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)


def _save(folder: Path, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Trainable parameters, optimiser moments and the step: safetensors and JSON, never pickle."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    tensors = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            tensors[f"{names[id(p)]}|parameter"] = p.detach().contiguous()
            for key, value in optimizer.state[p].items():
                tensors[f"{names[id(p)]}|{key}"] = torch.as_tensor(value).contiguous()
    save_file(tensors, fresh / "state.safetensors")
    (fresh / "state.json").write_text(json.dumps({"step": step}))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint if there is one; returns the number of finished steps."""
    if not (folder / "state.json").exists():
        return 0
    tensors = load_file(folder / "state.safetensors")
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data.copy_(tensors.pop(f"{name}|parameter"))
            keys = [key for key in tensors if key.rsplit("|", 1)[0] == name]
            state = {key.rsplit("|", 1)[1]: tensors.pop(key) for key in keys}
            # AdamW counts steps on the CPU; its moments live beside their parameter
            optimizer.state[p] = {key: value if key == "step" else value.to(p.device) for key, value in state.items()}
    return int(json.loads((folder / "state.json").read_text())["step"])


class _Log:
    """metrics.jsonl: one line per step, written by the first worker."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self.enabled = enabled
        if enabled:
            folder.mkdir(parents=True, exist_ok=True)

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run is about to repeat."""
        if self.enabled and self.path.exists():
            lines = self.path.read_text().splitlines()[:step]
            self.path.write_text("".join(line + "\n" for line in lines))

    def write(self, metrics: dict[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
