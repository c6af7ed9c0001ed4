"""Ray Train around the loop: stages that follow each other share one set of workers.

Starting workers costs many seconds (processes, imports, the process group), so a student's reconstruction and its
fine-tuning, or pretraining and the scorer, are one call with two stages; the model stays in memory in between.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raypipe.records import write_json
from raypipe.settings import config
from raypipe.training import examples
from raypipe.training.loop import Outcome


@dataclass(frozen=True)
class Mixed:
    """Rows that a stage learns among its own."""

    rows: str
    arm: str
    share: float  # of all rows


@dataclass(frozen=True)
class Stage:
    """One training: what is learned, from which model, and where the result goes."""

    folder: str  # gets model/, metrics.jsonl, checkpoint/ and outcome.json
    rows: str  # folder of training rows (training/examples.py)
    arm: str  # which of them
    training: config.Training
    # The model it starts from (what the stage before left is not read again), or an architecture to start anew.
    start: config.Model | config.Pretrain
    tokenizer: config.Model
    random_weights: bool = False  # of `start`, only the architecture is used
    dev_rows: str | None = None
    mixed: Mixed | None = None

    @property
    def name(self) -> str:
        """For progress lines: the last two folders."""
        return "/".join(Path(self.folder).parts[-2:])


def fit(
    stages: Sequence[Stage], resources: config.Resources, each: dict[str, float], say: Callable[[str], None]
) -> list[Outcome]:
    """Run the stages one after the other on Ray Train workers, `each` worker's resources by name.

    Finished stages are skipped, an unfinished one goes on from its checkpoint. After a lost worker, all start again
    there, at most twice; with `min_training_workers`, as many as there is room for.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    logs = Path(stages[0].folder) / "ray_train"
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "stages": list(stages),
            "threads": int(each.get("CPU", 1)),
            "sharding": resources.sharding,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu="GPU" in each, resources_per_worker=each
        ),
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex[:12],  # progress is kept by our checkpoints, not by Ray Train's
            storage_path=str(logs.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=2),
        ),
    )
    with _Progress(stages, say):
        trainer.fit()
    return [outcome(stage.folder) for stage in stages]


# Hears of every optimiser step of a stage: the stage, the model in training, its tokenizer, and the step's metrics.
Watch = Callable[[Stage, Any, Any, dict[str, Any]], None]


def fit_here(stages: Sequence[Stage], threads: int, has_gpu: bool, watch: Watch | None = None) -> list[Outcome]:
    """The same in this process, without Ray, on `threads` CPU threads or its GPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        device = torch.device("cuda" if has_gpu and stages[0].tokenizer.device != "cpu" else "cpu")
        run(stages, device, watch=watch)
    finally:
        torch.set_num_threads(before)
    return [outcome(stage.folder) for stage in stages]


def outcome(folder: str | Path) -> Outcome:
    """What a finished stage reported."""
    return Outcome(**json.loads((Path(folder) / "outcome.json").read_text()))


def _work(loop_config: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    torch.set_num_threads(loop_config["threads"])
    stages = loop_config["stages"]
    device = torch.device("cpu") if stages[0].tokenizer.device == "cpu" else ray.train.torch.get_device()
    run(stages, device, ray.train.get_context().get_world_rank() == 0, loop_config["sharding"])


def run(
    stages: Sequence[Stage],
    device: Any,
    is_first: bool = True,
    sharding: str = "ddp",
    watch: Watch | None = None,
) -> None:
    """The stages in this process; without Ray and torch.distributed it is a single worker."""
    import torch
    import torch.distributed as dist

    model, in_memory = None, ""
    for stage in stages:
        if (Path(stage.folder) / "outcome.json").exists():
            continue
        torch.manual_seed(stage.training.seed)
        if not isinstance(stage.start, config.Model) or stage.start.path != in_memory:
            model = _start(stage.start, stage)
        model = _train(model, stage, device, is_first, sharding, watch)
        in_memory = str(Path(stage.folder) / "model")
        if dist.is_initialized():
            dist.barrier()


def _start(start: config.Model | config.Pretrain, stage: Stage) -> Any:
    """The model that a stage starts from, on the CPU and in float32 (autocast does the rest)."""
    from raypipe.models import loading

    if isinstance(start, config.Pretrain):
        return loading.from_scratch(start, loading.load_tokenizer(stage.tokenizer))
    if stage.random_weights:
        return loading.random_like(start)
    return loading.load(start.model_copy(update={"dtype": "float32", "device": "cpu"})).model


def _train(model: Any, stage: Stage, device: Any, is_first: bool, sharding: str, watch: Watch | None) -> Any:
    """One stage; returns the trained model with adapters merged."""
    from raypipe.models import loading
    from raypipe.training import loop

    tokenizer = loading.load_tokenizer(stage.tokenizer)
    loading.set_dropout(model, stage.training.dropout)
    adapted = loop.add_lora(model, stage.training.lora) if stage.training.lora else None
    folder = Path(stage.folder)
    trained = adapted.get_base_model() if adapted is not None else model
    result = loop.fit(
        trained,
        tokenizer.pad_token_id,
        _examples(stage),
        stage.training,
        folder,
        dev=examples.read(stage.dev_rows, stage.arm) if stage.dev_rows else None,
        device=device,
        sharding=sharding,
        on_step=lambda metrics: watch(stage, trained, tokenizer, metrics) if watch else None,
    )
    if adapted is not None:
        if is_first:
            adapted.save_pretrained(folder / "adapter", safe_serialization=True)
        model = adapted.merge_and_unload().requires_grad_(True)  # merging leaves everything frozen
    if is_first:
        model.save_pretrained(folder / "model", safe_serialization=True)
        tokenizer.save_pretrained(folder / "model")
        write_json(folder / "outcome.json", asdict(result))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return model


def _examples(stage: Stage) -> examples.Examples:
    own, mixed = examples.read(stage.rows, stage.arm), stage.mixed
    return own if mixed is None else examples.mixed(own, examples.read(mixed.rows, mixed.arm), mixed.share)


class _Progress:
    """A line now and then while workers train, read from their metrics files."""

    EVERY_S = 10.0

    def __init__(self, stages: Sequence[Stage], say: Callable[[str], None]) -> None:
        self.stages, self.say = stages, say
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        told: dict[str, int] = {}
        began = time.time()
        while not self.stop.wait(self.EVERY_S):
            for stage in self.stages:
                metrics = Path(stage.folder) / "metrics.jsonl"
                if not metrics.exists() or metrics.stat().st_mtime < began:
                    continue
                lines = metrics.read_bytes().splitlines()
                if lines and len(lines) > told.get(stage.folder, 0):
                    told[stage.folder] = len(lines)
                    self.say(_line(stage.name, json.loads(lines[-1])))


def _line(name: str, m: dict[str, Any]) -> str:
    rate = m["tokens"] / max(m["seconds"], 1e-9)
    left = m["seconds"] / m["step"] * (m["steps"] - m["step"])
    return f"{name}: step {m['step']}/{m['steps']}, loss {m['loss']:.3f}, {rate:,.0f} tokens/s, {left:.0f} s left"
