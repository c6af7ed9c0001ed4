"""The whole Ray Data graph on one screen. Read this file second (rows.py first).

    notes -> hold_out -> Attribute                    -> attribute/data     relevance alone, to mask from many times
    notes -> hold_out -> Attribute -> Mask            -> mask/data          one stream: masked as soon as attributed
    notes -> hold_out -> join attribute/data  -> Mask -> mask/data          the same from stored relevance
    mask/data -> Render                               -> train/rows         tokens of one student, all arms together
    notes -> hold_out -> Cut                          -> pretrain/rows
    corpus/labelled -> Score                          -> evaluate/<student>

Blocks of `rows_per_block` notes are the unit of parallelism, of retry and of resume; nothing is collected on the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig

from raypipe import config, rows
from raypipe.cluster import Cluster
from raypipe.corpus import Corpus
from raypipe.masking import STRATEGIES
from raypipe.masking.strategy import RELEVANCE
from raypipe.notes.files import read_notes
from raypipe.stages.attribute import Attribute
from raypipe.stages.cut import Cut
from raypipe.stages.hold_out import hold_out
from raypipe.stages.mask import Mask
from raypipe.stages.render import Render
from raypipe.stages.score import Score

# One block in, one block out, as Arrow: every other batch format changes column types on the way.
BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
# Cheap stages of a stream take no CPU of their own, so that a resumed job on a small cluster is not starved.
LIGHT: dict[str, Any] = {"compute": ActorPoolStrategy(min_size=1, max_size=4), "num_cpus": 0}


def attribute(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Cluster, out: Path) -> None:
    """Relevance of the notes for self-supervision, without their text."""
    with _resumable(out):
        stream = _attributed(settings, corpus, scorer, cluster)
        stream.select_columns(rows.ATTRIBUTED.names).write_parquet(str(out))


def mask(
    settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Cluster, out: Path, stored: Path | None
) -> None:
    """Masking plans of all arms, with the relevance and the text that they belong to."""
    arms = masking_of(settings)
    if stored is not None:
        relevance = ray.data.read_parquet(str(stored)).drop_columns(["error"])
        parts = max(1, int(cluster.cpus))
        stream = _notes(settings, corpus).join(relevance, join_type="left_outer", num_partitions=parts, on=("note_id",))
        stream.map_batches(Mask, fn_constructor_args=(arms, settings.seed), **LIGHT, **BLOCK).write_parquet(str(out))
        return
    with _resumable(out):
        stream = _attributed(settings, corpus, scorer, cluster) if needs(arms, RELEVANCE) else _notes(settings, corpus)
        stream.map_batches(Mask, fn_constructor_args=(arms, settings.seed), **LIGHT, **BLOCK).write_parquet(str(out))


def render(
    settings: config.Config, corpus: Corpus, student: config.Model, masked: Path, cluster: Cluster, out: Path
) -> None:
    """Plans of all arms to training rows of one student."""
    plans = _blocks(settings, ray.data.read_parquet(str(masked), columns=["note_id", "text", "plans"]))
    args = (student, settings.prompt, masking_of(settings), corpus.tasks)
    plans.map_batches(Render, fn_constructor_args=args, **_spread(cluster), **BLOCK).write_parquet(str(out))


def cut(
    settings: config.Config, corpus: Corpus, tokenizer: config.Model, cluster: Cluster, out: Path
) -> None:
    """Notes to training rows of plain text."""
    notes = _notes(settings, corpus, corpus.data.for_pretraining)
    args = (tokenizer, settings.pretrain)
    notes.map_batches(Cut, fn_constructor_args=args, **_spread(cluster), **BLOCK).write_parquet(str(out))


def score(settings: config.Config, corpus: Corpus, model: config.Model, cluster: Cluster, out: Path) -> None:
    """Labelled notes of the evaluation split to predictions."""
    notes = _blocks(settings, ray.data.read_parquet(str(corpus.labelled_path)))
    args = (model, settings.prompt, corpus.tasks, str(corpus.labels_path), settings.evaluation)
    notes.map_batches(Score, fn_constructor_args=args, **_on_devices(cluster), **BLOCK).write_parquet(str(out))


def masking_of(settings: config.Config) -> dict[str, config.Masking]:
    """The masking of the arms that learn from unlabelled notes."""
    return {name: arm.masking for name, arm in settings.arms.items() if arm.masking is not None}


def needs(arms: Mapping[str, config.Masking], what: str) -> bool:
    """Does any arm need this of the corpus (masking/strategy.py)?"""
    return any(what in STRATEGIES[masking.strategy].needs(masking) for masking in arms.values())


def _attributed(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Cluster) -> Dataset:
    threads = max(1, int(settings.resources.cpus_per_actor))
    args = (scorer, settings.attribution, settings.prompt, corpus.tasks, settings.seed, threads)
    return _notes(settings, corpus).map_batches(Attribute, fn_constructor_args=args, **_on_devices(cluster), **BLOCK)


def _notes(settings: config.Config, corpus: Corpus, data: config.Data | None = None) -> Dataset:
    """Notes for self-supervision; those of validation and test patients come marked, without their text."""
    notes = read_notes(data or corpus.data, settings.resources.rows_per_block)
    kwargs = {"guard": corpus.guard, "last_hash": None if data else corpus.last_hash}
    return notes.map_batches(hold_out, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)


def _on_devices(cluster: Cluster) -> dict[str, Any]:
    """Actors that hold a model, as many as there are devices."""
    pool = ActorPoolStrategy(size=cluster.actors)
    return {"compute": pool, "num_cpus": cluster.cpus_per_actor, "num_gpus": cluster.gpus_per_actor}


def _spread(cluster: Cluster) -> dict[str, Any]:
    """CPU actors, more of them while there is work."""
    return {"compute": ActorPoolStrategy(min_size=1, max_size=max(1, int(cluster.cpus) - 2)), "num_cpus": 0.5}


def _blocks(settings: config.Config, dataset: Dataset) -> Dataset:
    # Ray's Parquet reader may return a whole folder as one block, and one actor would get all the work
    return dataset.repartition(target_num_rows_per_block=settings.resources.rows_per_block)


@contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Datasets made in this block skip the notes whose rows are already in `out`."""
    context = DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="note_id",
        checkpoint_path=str(out.parent / "written"),
        delete_checkpoint_on_success=False,  # Ray's default makes a second run append everything again
    )
    try:
        yield
    finally:
        context.checkpoint_config = None
