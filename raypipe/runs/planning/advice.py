"""What would starve the pool, overflow or not fit, each with the setting that helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raypipe.runs.planning.figures import Corpus, Memory, OnGpus, Stage, Step
from raypipe.settings.config import Config

FEW_SHARDS = 4  # for each GPU: with fewer, the last blocks keep some GPUs waiting
MASK_WORKERS = 4  # at most, in the stream (stream/cluster.py, `light`)
MUCH_CUT = 0.05
MUCH_HOST = 64e9  # bytes beside the other workers of a machine


def advice(
    settings: Config,
    corpus: Corpus,
    steps: Sequence[Step],
    stages: Sequence[Stage],
    on_gpus: Sequence[OnGpus],
    memory: Sequence[Memory],
    limit: float | None,
    host_bytes: float = 0.0,
) -> Iterator[str]:
    """One line for each."""
    if host_bytes > MUCH_HOST:
        what = f"each training worker holds {host_bytes / 1e9:,.0f} GB for the order of training rows"
        yield f"{what}: lower attribution.tasks_per_note, data.max_unlabelled or the arms' draws"
    most = max(of.gpus for of in on_gpus)
    yield from _of_pool(settings, steps, most)
    yield from _of_blocks(settings, steps, stages)
    yield from _of_masking(steps, stages, most)
    if limit is not None:
        yield from _of_memory(settings, memory, limit)
    if corpus.truncated > MUCH_CUT:
        what = f"{corpus.truncated:.0%} of the notes do not fit prompt.max_tokens: {settings.prompt.max_tokens}"
        yield f"{what}, and lose their {'end' if settings.prompt.keep == 'head' else 'beginning'}: raise it"
    if corpus.unreadable > settings.data.max_error_rate * max(1, corpus.to_learn_from + corpus.unreadable):
        yield f"{corpus.unreadable:,} notes cannot be read, more than data.max_error_rate allows: the job would stop"
    for step in steps:
        if step.flops is None:
            yield f"{step.name}: {step.remark}; without a model here, its time is not in the sums"
    if any(step.kind == "training" and not step.optimiser_steps for step in steps):
        yield "a training has no row to learn from: no labelled or masked note fits the context"


def _of_pool(settings: Config, steps: Sequence[Step], most: int) -> Iterator[str]:
    resources = settings.resources
    if not resources.ray:
        if most > 1:
            yield f"resources.ray is false: of {most} GPUs, one works. Set it to true"
        return  # one process, to which the size of blocks is the same
    streams = [step for step in steps if step.kind in ("attribution", "scoring")]
    largest = max(streams, key=lambda step: step.flops or 0, default=None)
    if largest is not None and largest.shards < min(most * FEW_SHARDS, largest.rows):
        n = max(1, round(largest.rows / (most * FEW_SHARDS)))
        starves = "fewer than" if largest.shards < most else f"less than {FEW_SHARDS} for each of"
        what = f"{largest.name}: {largest.shards:,} blocks of {resources.rows_per_block} rows, {starves} {most} GPUs"
        yield f"{what}: set resources.rows_per_block to {n} or less"
    if resources.attribution_actors != "auto" and resources.attribution_actors < most:
        what = f"resources.attribution_actors is {resources.attribution_actors}, fewer than {most} GPUs"
        yield f"{what}: set it to auto"
    trainings = [step for step in steps if step.kind == "training"]
    if trainings and max(step.workers for step in trainings) < most:
        n_arms = sum(step.name.startswith(("train/", "finetune/")) for step in trainings)
        what = f"trainings use {max(step.workers for step in trainings)} of {most} GPUs"
        how = f"set resources.training_workers to {min(most, settings.train.batch_rows)}"
        yield f"{what}: {how}" + (" or resources.concurrent_arms to the number of arms" if n_arms > 1 else "")
    if resources.training_workers > settings.finetune.batch_rows:
        what = f"resources.training_workers is {resources.training_workers}, but a step of fine-tuning has"
        yield f"{what} {settings.finetune.batch_rows} rows: some workers have none. Raise finetune.batch_rows"


def _of_blocks(settings: Config, steps: Sequence[Step], stages: Sequence[Stage]) -> Iterator[str]:
    """Ray ends a stream in which no block is done for a while, and what a block has done is lost with it."""
    limit, n_rows = settings.resources.no_progress_timeout_s, settings.resources.rows_per_block
    seconds = {stage.name: stage.seconds or 0.0 for stage in stages}
    streams = [step for step in steps if step.kind in ("attribution", "scoring") and step.rows]
    slowest = max(streams, key=lambda step: seconds[step.name] / step.rows, default=None)
    if slowest is None or not settings.resources.ray:
        return
    of_note = seconds[slowest.name] / slowest.rows
    if of_note * n_rows > limit / 2:
        n = max(1, int(limit / 2 / of_note))
        what = f"{slowest.name}: a block of {n_rows} notes takes {of_note * n_rows / 60:,.0f} minutes"
        what = f"{what}, and Ray ends a stream without one for {limit / 60:,.0f}"
        yield f"{what}: set resources.rows_per_block to {n} or less"


def _of_masking(steps: Sequence[Step], stages: Sequence[Stage], most: int) -> Iterator[str]:
    """Masks are made in the stream, by a few CPU workers beside the GPUs."""
    seconds = {stage.name: stage.seconds for stage in stages}
    for step in steps:
        on_gpu = seconds.get(step.name)
        if (
            step.kind == "attribution"
            and step.cpu_seconds
            and on_gpu
            and step.cpu_seconds / MASK_WORKERS > on_gpu / most
        ):
            what = f"{step.name}: {MASK_WORKERS} CPU workers mask for {step.cpu_seconds / MASK_WORKERS / 3600:.1f} h"
            yield f"{what}, longer than {most} GPUs attribute: run `raypipe attribute` first, then `raypipe mask`"


def _of_memory(settings: Config, memory: Sequence[Memory], limit: float) -> Iterator[str]:
    for of in memory:
        optional = of.parts.get("float32 copy, if it fits", 0.0)
        if of.total <= limit:
            continue
        if of.total - optional <= limit:
            yield f"{of.of}: no room for a float32 copy, so borderline answers stay as bfloat16 has them"
            continue
        what = f"{of.of}: {(of.total - optional) / 1e9:.0f} GB do not fit {limit / 1e9:.0f} GB"
        yield f"{what}: {_way_out(settings, of, limit)}"


def _way_out(settings: Config, of: Memory, limit: float) -> str:
    """The settings that make the largest part smaller."""
    section = of.of.split(" ")[0]
    if section == "attribution":
        if of.parts["weights"] > limit:
            return "the weights alone do not; take a smaller model"
        return "lower attribution.batch_tokens"
    training = {"pretrain": "pretrain.training", "train": "train", "finetune": "finetune"}.get(section, "finetune")
    of_weights = sum(of.parts[part] for part in ("weights", "gradients", "optimiser"))
    ways = []
    if of_weights > limit / 2:
        ways += [] if "adapters" in of.of else [f"train adapters ({training}.lora)"]
        ways += ["shard over workers (resources.sharding: fsdp2, resources.training_workers)"]
    if of.parts["activations"] > limit / 4:
        ways += [f"set {training}.gradient_checkpointing: true", f"lower {training}.micro_batch_tokens"]
    return ", or ".join(ways) or f"lower {training}.micro_batch_tokens"
