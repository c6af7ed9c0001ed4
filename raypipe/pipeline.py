"""The whole Ray Data graph on one screen. Read this file second (rows.py first).

    read_notes -> HoldOut -> Attribute -> Mask -> mask/data        one stream: a note's relevance is masked at once
    mask/data  -> Render  -> train/rows                            tokens of one student, cheap, all arms together
    read_notes -> Cut     -> pretrain/rows
    labelled   -> Score   -> evaluate/<arm>/data

Blocks of `rows_per_block` notes are the unit of parallelism, of retry and of resume. Every stage maps one block to one
block and nothing is collected on the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig

from raypipe import config
from raypipe.cluster import Cluster
from raypipe.notes.files import read_notes
from raypipe.notes.leakage import Guard
from raypipe.stages.attribute import Attribute
from raypipe.stages.cut import Cut
from raypipe.stages.hold_out import HoldOut
from raypipe.stages.mask import Mask
from raypipe.stages.render import Render
from raypipe.stages.score import Score
from raypipe.tasks import Task

# One block in, one block out, as Arrow: any other batch format changes column types on the way.
BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


def attribute_and_mask(
    settings: config.Config, scorer: config.Model, tasks: Sequence[Task], guard: Guard | None, cluster: Cluster, out: Path
) -> None:
    """Notes to relevance and masking plans, in one stream; resumes at the blocks that are not yet written."""
    _checkpoint(out)
    notes = read_notes(settings.data, settings.resources.rows_per_block)
    if guard is not None:
        notes = notes.map_batches(HoldOut, fn_constructor_args=(guard,), compute=ActorPoolStrategy(size=1), num_cpus=0, **BLOCK)
    if needs_relevance(masking_of(settings)):
        notes = notes.map_batches(
            Attribute,
            fn_constructor_kwargs={
                "model": scorer,
                "attribution": settings.attribution,
                "prompt": settings.prompt,
                "tasks": list(tasks),
                "seed": settings.seed,
                "threads": max(1, int(settings.resources.cpus_per_actor)),
            },
            compute=ActorPoolStrategy(size=cluster.actors),
            num_cpus=cluster.cpus_per_actor,
            num_gpus=cluster.gpus_per_actor,
            **BLOCK,
        )
    masked = notes.map_batches(
        Mask,
        fn_constructor_args=(masking_of(settings), settings.seed),
        compute=ActorPoolStrategy(size=1),
        num_cpus=0,
        **BLOCK,
    )
    _write(masked, out)


def render(
    settings: config.Config, student: config.Model, tasks: Sequence[Task], masked: Path, cluster: Cluster, out: Path
) -> None:
    """Plans of all arms to training rows of one student."""
    plans = _blocks(ray.data.read_parquet(str(masked)), settings.resources.rows_per_block)
    args = (student, settings.prompt, masking_of(settings), list(tasks))
    _write(plans.map_batches(Render, fn_constructor_args=args, compute=_pool(cluster), num_cpus=0.5, **BLOCK), out)


def cut(settings: config.Config, notes: config.Data, tokenizer: config.Model, context: int, cluster: Cluster, out: Path) -> None:
    """Notes to training rows of plain text."""
    stream = read_notes(notes, settings.resources.rows_per_block)
    args = (tokenizer, context)
    _write(stream.map_batches(Cut, fn_constructor_args=args, compute=_pool(cluster), num_cpus=0.5, **BLOCK), out)


def score(
    settings: config.Config, model: config.Model, tasks: Sequence[Task], labelled: Path, labels: Path, cluster: Cluster, out: Path
) -> None:
    """Labelled notes of the evaluation split to predictions."""
    notes = _blocks(ray.data.read_parquet(str(labelled)), settings.resources.rows_per_block)
    kwargs = {
        "model": model,
        "prompt": settings.prompt,
        "tasks": list(tasks),
        "labels": str(labels),
        "split": settings.evaluation.split,
        "batch_tokens": settings.evaluation.batch_tokens,
    }
    pool = ActorPoolStrategy(size=cluster.actors)
    predictions = notes.map_batches(
        Score,
        fn_constructor_kwargs=kwargs,
        compute=pool,
        num_cpus=cluster.cpus_per_actor,
        num_gpus=cluster.gpus_per_actor,
        **BLOCK,
    )
    _write(predictions, out)


def masking_of(settings: config.Config) -> dict[str, config.Masking]:
    """The masking of the arms that learn from unlabelled notes."""
    return {name: arm.masking for name, arm in settings.arms.items() if arm.masking is not None}


def needs_relevance(arms: Mapping[str, config.Masking]) -> bool:
    """Does any arm look at relevance? If none does, no scorer runs."""
    from raypipe.masking import STRATEGIES

    return any(STRATEGIES[masking.strategy].needs_relevance for masking in arms.values())


def _pool(cluster: Cluster) -> ActorPoolStrategy:
    return ActorPoolStrategy(min_size=1, max_size=max(1, int(cluster.cpus) - 2))


def _blocks(dataset: Dataset, rows_per_block: int) -> Dataset:
    # Ray's Parquet reader may return one block for a whole folder: one actor would get all the work
    return dataset.repartition(target_num_rows_per_block=rows_per_block)


def _checkpoint(out: Path) -> None:
    """From here on this driver's datasets skip the notes whose rows are already in `out`."""
    DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="note_id",
        checkpoint_path=str(out.parent / "_checkpoint"),
        delete_checkpoint_on_success=False,  # Ray's default would make a second run append everything again
    )


def _write(dataset: Dataset, out: Path) -> None:
    try:
        dataset.write_parquet(str(out))
    finally:
        DataContext.get_current().checkpoint_config = None
