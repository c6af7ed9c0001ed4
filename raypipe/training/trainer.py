"""Ray Train around the loop: trainings that follow each other share one set of workers.

Starting workers costs many seconds (processes, imports, the process group), so a student's reconstruction and its
fine-tuning, or pretraining and the scorer, are one call with two trainings; the model stays in memory in between.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raypipe.guard import stalls
from raypipe.guard.quiet import quiet
from raypipe.records import write_json
from raypipe.settings import config
from raypipe.training import examples
from raypipe.training.loop import DIVERGED, Outcome


@dataclass(frozen=True)
class Mixed:
    """Rows that are learned among those of the training itself."""

    rows: str
    arm: str
    share: float  # of all rows


@dataclass(frozen=True)
class TrainingSpec:
    """One training: what is learned, from which model, and where the result goes."""

    folder: str  # gets model/, adapter/ (with LoRA), metrics.jsonl, checkpoint/ and outcome.json
    rows: str  # folder of training rows (training/examples.py)
    arm: str  # which of them
    training: config.Training
    # The model it starts from (what the training before left is not read again), or an architecture to start anew.
    start: config.Model | config.Pretrain
    tokenizer: config.Model
    random_weights: bool = False  # of `start`, only the architecture is used
    dev_rows: str | None = None
    mixed: Mixed | None = None

    @property
    def name(self) -> str:
        """For progress lines: the last two folders."""
        return "/".join(Path(self.folder).parts[-2:])


# How far a training has come: step, steps, what else to say; None: it has not begun.
Read = Callable[[], tuple[int, int | None, str] | None]
# Shows how far something has come while a block runs: (name, unit, read).
Follow = Callable[[str, str, Read], AbstractContextManager[None]]


def in_silence(name: str, unit: str, read: Read) -> AbstractContextManager[None]:
    """Shows nothing."""
    return nullcontext()


# Hears of every optimiser step (the training, the model in it, its tokenizer, the step's metrics), and may add metrics.
Watch = Callable[[TrainingSpec, Any, Any, dict[str, Any]], dict[str, float]]


def fit(
    specs: Sequence[TrainingSpec],
    resources: config.Resources,
    each: dict[str, float],
    watch: Watch | None = None,
    follow: Follow = in_silence,
    notes: Path | None = None,
) -> list[Outcome]:
    """Run the trainings one after the other on Ray Train workers, `each` worker's resources by name.

    Finished trainings are skipped, an unfinished one goes on from its checkpoint. After a lost worker, all start again
    there, at most twice; with `min_training_workers`, as many as there is room for. `notes`: of workers that did not go
    on (guard/stalls.py).
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    _store_rows(specs)
    logs = Path(specs[0].folder) / "ray_train"
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "specs": list(specs),
            "threads": int(each.get("CPU", 1)),
            "sharding": resources.sharding,
            "watch": watch,
            "limit_s": resources.no_progress_timeout_s,
            "notes": notes,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu="GPU" in each, resources_per_worker=each
        ),
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex[:12],  # progress lies in our checkpoints, not in Ray Train's
            storage_path=str(logs.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=2),
        ),
    )
    trainer._register_sigint_handler = lambda _: None  # it would take ctrl-C for itself
    with _followed(specs, follow):
        trainer.fit()
    return [_ended(spec) for spec in specs]


def fit_here(
    specs: Sequence[TrainingSpec],
    threads: int,
    has_gpu: bool,
    watch: Watch | None = None,
    follow: Follow = in_silence,
) -> list[Outcome]:
    """The same in this process, without Ray, on `threads` CPU threads or its GPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        device = torch.device("cuda" if has_gpu and specs[0].tokenizer.device != "cpu" else "cpu")
        with _followed(specs, follow):
            run(specs, device, watch=watch)
    finally:
        torch.set_num_threads(before)
    return [_ended(spec) for spec in specs]


def _ended(spec: TrainingSpec) -> Outcome:
    """What it reported; its checkpoint, which holds note text as tokens, is gone. Raises OSError if it cannot go."""
    with suppress(FileNotFoundError):
        shutil.rmtree(Path(spec.folder) / "checkpoint")
    return outcome(spec.folder)


def outcome(folder: str | Path) -> Outcome:
    """What a finished training reported."""
    return Outcome(**json.loads((Path(folder) / "outcome.json").read_text()))


@quiet
def _work(loop_config: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    torch.set_num_threads(loop_config["threads"])
    specs = loop_config["specs"]
    device = torch.device("cpu") if specs[0].tokenizer.device == "cpu" else ray.train.torch.get_device()
    is_first = ray.train.get_context().get_world_rank() == 0
    folders = [Path(spec.folder) for spec in specs]
    names = ", ".join(spec.name for spec in specs)
    with stalls.ended_after(loop_config["limit_s"], names, folders, loop_config["notes"]):
        _train_all(specs, device, is_first, loop_config["sharding"], loop_config["watch"])


def run(specs: Sequence[TrainingSpec], device: Any, watch: Watch | None = None) -> None:
    """The trainings in this process, which is the only worker."""
    _store_rows(specs)
    _train_all(specs, device, watch=watch)


def _unfinished(specs: Sequence[TrainingSpec]) -> list[TrainingSpec]:
    return [spec for spec in specs if not (Path(spec.folder) / "outcome.json").exists()]


def _store_rows(specs: Sequence[TrainingSpec]) -> None:
    """Write the rows that workers map, anew at every attempt: what a crash left on the disk is not to be trusted.

    That a training diverged in an earlier attempt is forgotten.
    """
    for spec in _unfinished(specs):
        (Path(spec.folder) / DIVERGED).unlink(missing_ok=True)
        examples.store(spec.rows, spec.arm, _rows_file(spec))


def _rows_file(spec: TrainingSpec) -> Path:
    """Where they lie: with what else a training keeps until it has ended."""
    return Path(spec.folder) / "checkpoint" / "rows.arrow"


def _train_all(
    specs: Sequence[TrainingSpec],
    device: Any,
    is_first: bool = True,
    sharding: str = "ddp",
    watch: Watch | None = None,
) -> None:
    """What each worker does."""
    import torch
    import torch.distributed as dist

    model, in_memory = None, ""
    for spec in _unfinished(specs):
        torch.manual_seed(spec.training.seed)
        if spec.random_weights or not isinstance(spec.start, config.Model) or spec.start.path != in_memory:
            model = _start(spec)
        model = _train(model, spec, device, is_first, sharding, watch)
        in_memory = str(Path(spec.folder) / "model")
        if dist.is_initialized():
            dist.barrier()


def _start(spec: TrainingSpec) -> Any:
    """The model that a training starts from, on the CPU, its weights in the dtype that they are stored in."""
    import torch

    from raypipe.models import loading

    start = spec.start
    if isinstance(start, config.Pretrain):
        return loading.from_scratch(start, loading.load_tokenizer(spec.tokenizer))
    if spec.random_weights:
        return loading.random_like(start)
    # an adapter is added in float32, or its small numbers would be lost in the rounding
    dtype = loading.stored_dtype(start) if start.adapter is None else torch.float32
    return loading.load(start.model_copy(update={"device": "cpu"}), dtype=dtype).model


def _train(model: Any, spec: TrainingSpec, device: Any, is_first: bool, sharding: str, watch: Watch | None) -> Any:
    """One training; returns the model as it was written: adapters merged, in the dtype of the backbone."""
    import torch

    from raypipe.models import loading
    from raypipe.training import loop, lora

    tokenizer = loading.load_tokenizer(spec.tokenizer)
    loading.set_dropout(model, spec.training.dropout)
    stored = loading.stored_dtype(spec.start) if isinstance(spec.start, config.Model) else torch.float32
    adapted = lora.prepare(model, spec.training, device)
    folder = Path(spec.folder)
    trained = adapted.get_base_model() if adapted is not None else model
    result = loop.fit(
        trained,
        tokenizer.pad_token_id,
        _examples(spec),
        spec.training,
        folder,
        dev=examples.read(spec.dev_rows, spec.arm) if spec.dev_rows else None,
        device=device,
        sharding=sharding,
        on_step=lambda metrics: watch(spec, trained, tokenizer, metrics) if watch else {},
    )
    if adapted is not None:
        if is_first and (base := _base_on_disk(spec)) is not None:
            lora.save(adapted, base, folder / "adapter")
        model = lora.merge(adapted)
    loading.cast_parameters(model, stored)  # the next training goes on from exactly the weights that are saved
    if is_first:
        model.save_pretrained(folder / "model", safe_serialization=True)
        tokenizer.save_pretrained(folder / "model")
        write_json(folder / "outcome.json", asdict(result))
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # it is large; if it does not go, `_ended` says why
    return model


def _base_on_disk(spec: TrainingSpec) -> config.Model | None:
    """The model to which the trained adapter belongs, if it can be loaded from somewhere.

    Random weights lie nowhere, and neither does a model with an older adapter merged: then model/ alone is written.
    """
    start = spec.start
    if isinstance(start, config.Model) and start.adapter is None and not spec.random_weights:
        return start
    return None


def _examples(spec: TrainingSpec) -> examples.Examples:
    own, mixed = examples.mapped(_rows_file(spec)), spec.mixed
    return own if mixed is None else examples.mixed(own, examples.read(mixed.rows, mixed.arm), mixed.share)


@contextmanager
def _followed(specs: Sequence[TrainingSpec], follow: Follow) -> Iterator[None]:
    """Show each training while it is in work, from the metrics that its first worker writes."""
    with ExitStack() as stack:
        for spec in specs:
            stack.enter_context(follow(spec.name, "steps", Metrics(spec.folder)))
        yield


class Metrics:
    """How far a training has come, from the last line of its metrics; None while there is none, and when it is done."""

    LAST_BYTES = 2000  # more than a line

    def __init__(self, folder: str) -> None:
        self.path, self.outcome = Path(folder) / "metrics.jsonl", Path(folder) / "outcome.json"
        self.before = self._size()  # what an earlier attempt left is no progress

    def __call__(self) -> tuple[int, int | None, str] | None:
        if self._size() in (0, self.before) or self.outcome.exists():
            return None
        with self.path.open("rb") as file:
            file.seek(max(0, self._size() - self.LAST_BYTES))
            lines = file.read().splitlines(keepends=True)
        if not lines or not lines[-1].endswith(b"\n"):
            lines = lines[:-1]  # is being written
        if not lines:
            return None
        last = json.loads(lines[-1])
        rate = last["tokens"] / max(last["seconds"], 1e-9)
        return last["step"], last["steps"], f"loss {last['loss']:.3f}, {rate:,.0f} tokens/s"

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0
