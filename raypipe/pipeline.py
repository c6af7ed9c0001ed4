"""The whole Ray Data graph on one screen. Read this file second (rows.py first).

    notes -> hold_out -> Attribute                    -> attribute/data     relevance alone, to mask from many times
    notes -> hold_out -> Attribute -> Mask            -> mask/data          one stream: masked as soon as attributed
    notes -> hold_out -> match attribute/data -> Mask -> mask/data          the same from stored relevance
    notes -> hold_out -> count -> add_up              -> statistics/        words of the corpus, if an arm asks for them
    notes -> hold_out -> match attribute/data -> average -> add_up          the same with mean relevance
    corpus/labelled -> Attribute (occlusion) -> average -> add_up           words that matter in labelled notes
    mask/data -> Render                               -> train/rows         tokens of one student, all arms together
    notes -> hold_out -> Cut                          -> pretrain/rows
    corpus/labelled -> Score                          -> evaluate/<student>

Blocks of `rows_per_block` notes are the unit of parallelism, of retry and of resume; only counts of
words reach the driver.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig

from raypipe import config, rows
from raypipe.cluster import Cluster
from raypipe.corpus import Corpus
from raypipe.masking.asked import Asked
from raypipe.masking.check import needs
from raypipe.masking.counting import GRAMS, TYPES
from raypipe.masking.strategy import RELEVANCE
from raypipe.masking.tally import Tally, tally
from raypipe.masking.weights import weights_of_arm
from raypipe.notes.files import read_notes
from raypipe.stages.attribute import Attribute
from raypipe.stages.count import add_up, average, count, labelled
from raypipe.stages.cut import Cut
from raypipe.stages.hold_out import hold_out
from raypipe.stages.mask import Mask
from raypipe.stages.match import either, match
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


def count_words(settings: config.Config, corpus: Corpus, data: config.Data, asked: Asked, cluster: Cluster) -> pa.Table:
    """Words and runs of words of the first `statistics.max_notes` notes of `data`."""
    n_notes = min(settings.statistics.max_notes, data.max_unlabelled or settings.statistics.max_notes)
    kwargs = {"longest": asked.longest, "phi_patterns": asked.phi_patterns}
    notes = _read(settings, corpus, data, corpus.last_hash_of(data, n_notes))
    return _added_up(settings, notes.map_batches(count, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK), GRAMS, cluster)


def relevance_of_words(settings: config.Config, corpus: Corpus, stored: Path, cluster: Cluster) -> pa.Table:
    """Mean relevance by word, over all notes for self-supervision."""
    notes = _with_relevance(settings, corpus, stored, cluster)
    by_word = notes.map_batches(average, fn_kwargs={"delta": 0.0}, num_cpus=0.5, **BLOCK)
    return _added_up(settings, by_word, TYPES, cluster)


def importance_of_words(
    settings: config.Config, corpus: Corpus, scorer: config.Model, asked: Asked, cluster: Cluster
) -> pa.Table:
    """How often deleting a word costs the scorer its task, over the labelled training notes."""
    train = corpus.labels.filter(pc.equal(corpus.labels["split"], "train"))["note_id"]
    notes = _blocks(settings, ray.data.read_parquet(str(corpus.labelled_path)))
    notes = notes.map_batches(labelled, fn_kwargs={"note_ids": frozenset(train.to_pylist())}, num_cpus=0.5, **BLOCK)
    occlusion = {"method": "occlusion", "sign": "positive", "layer": 0, "window": 1}
    deleting = settings.attribution.model_copy(update=occlusion)
    relevance = _attribute(settings, notes, corpus, scorer, deleting, cluster)
    by_word = relevance.map_batches(average, fn_kwargs={"delta": asked.delta}, num_cpus=0.5, **BLOCK)
    return _added_up(settings, by_word, TYPES, cluster)


def mask(
    settings: config.Config,
    corpus: Corpus,
    scorer: config.Model,
    cluster: Cluster,
    out: Path,
    stored: Path | None,
    statistics: Path | None,
) -> None:
    """Masking plans of all arms, with the relevance and the text that they belong to."""
    arms = masking_of(settings)
    args = (arms, settings.seed, None if statistics is None else str(statistics))
    if stored is not None and RELEVANCE in needs(arms):
        stream = _with_relevance(settings, corpus, stored, cluster)
        _replace(stream.map_batches(Mask, fn_constructor_args=args, **LIGHT, **BLOCK), out)
        return
    with _resumable(out):
        is_ranked = RELEVANCE in needs(arms)
        stream = _attributed(settings, corpus, scorer, cluster) if is_ranked else _notes(settings, corpus)
        stream.map_batches(Mask, fn_constructor_args=args, **LIGHT, **BLOCK).write_parquet(str(out))


def render(
    settings: config.Config,
    corpus: Corpus,
    student: config.Model,
    sentinels: Sequence[str],
    masked: Path,
    cluster: Cluster,
    out: Path,
) -> None:
    """Plans of all arms to training rows of one student."""
    arms, planned = masking_of(settings), tally(masked)
    weights = {name: weights_of_arm(masking, planned.get(name, Tally())) for name, masking in arms.items()}
    plans = _blocks(settings, ray.data.read_parquet(str(masked), columns=["note_id", "text", "plans"]))
    # LoRA trains linear layers alone: a reserved token's embedding would stay noise
    args = (student, settings.prompt, arms, corpus.tasks, sentinels, settings.train.lora is None, weights)
    _replace(plans.map_batches(Render, fn_constructor_args=args, **_spread(cluster), **BLOCK), out)


def cut(settings: config.Config, corpus: Corpus, tokenizer: config.Model, cluster: Cluster, out: Path) -> None:
    """Notes to training rows of plain text."""
    notes = _read(settings, corpus, corpus.data.for_pretraining, None)
    args = (tokenizer, settings.pretrain)
    _replace(notes.map_batches(Cut, fn_constructor_args=args, **_spread(cluster), **BLOCK), out)


def score(settings: config.Config, corpus: Corpus, model: config.Model, cluster: Cluster, out: Path) -> None:
    """Labelled notes of the evaluation split to predictions."""
    notes = _blocks(settings, ray.data.read_parquet(str(corpus.labelled_path)))
    args = (model, settings.prompt, corpus.tasks, str(corpus.labels_path), settings.evaluation)
    _replace(notes.map_batches(Score, fn_constructor_args=args, **_on_devices(cluster), **BLOCK), out)


def masking_of(settings: config.Config) -> dict[str, config.Masking]:
    """The masking of the arms that learn from unlabelled notes."""
    return {name: arm.masking for name, arm in settings.arms.items() if arm.masking is not None}


def _attributed(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Cluster) -> Dataset:
    return _attribute(settings, _notes(settings, corpus), corpus, scorer, settings.attribution, cluster)


def _attribute(
    settings: config.Config,
    notes: Dataset,
    corpus: Corpus,
    scorer: config.Model,
    attribution: config.Attribution,
    cluster: Cluster,
) -> Dataset:
    threads = max(1, int(settings.resources.cpus_per_actor))
    args = (scorer, attribution, settings.prompt, corpus.tasks, settings.seed, threads)
    return notes.map_batches(Attribute, fn_constructor_args=args, **_on_devices(cluster), **BLOCK)


def _with_relevance(settings: config.Config, corpus: Corpus, stored: Path, cluster: Cluster) -> Dataset:
    notes = _notes(settings, corpus).map_batches(either, fn_kwargs={"is_stored": False}, num_cpus=0.5, **BLOCK)
    relevance = ray.data.read_parquet(str(stored)).map_batches(either, fn_kwargs={"is_stored": True}, **BLOCK)
    pairs = notes.union(relevance).repartition(max(1, int(cluster.cpus)), keys=["note_id"])
    return pairs.map_batches(match, num_cpus=0.5, **BLOCK)


def _added_up(settings: config.Config, tables: Dataset, schema: pa.Schema, cluster: Cluster) -> pa.Table:
    """Tables of masking/counting.py as one. All rows of a word meet in one block, so each worker adds up some words."""
    words = tables.repartition(max(1, int(cluster.cpus)), keys=["gram"])
    kwargs = {"min_notes": settings.statistics.min_notes}
    summed = words.map_batches(add_up, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    blocks = summed.iter_batches(batch_size=None, batch_format="pyarrow")
    return pa.concat_tables([schema.empty_table(), *(block.cast(schema) for block in blocks if block.num_rows)])


def _notes(settings: config.Config, corpus: Corpus) -> Dataset:
    """Notes for self-supervision."""
    return _read(settings, corpus, corpus.data, corpus.last_hash)


def _read(settings: config.Config, corpus: Corpus, data: config.Data, last_hash: int | None) -> Dataset:
    """Notes; those of validation and test patients, and those beyond the limit, come marked, without their text."""
    notes = read_notes(data, settings.resources.rows_per_block)
    kwargs = {"guard": corpus.guard, "last_hash": last_hash}
    return notes.map_batches(hold_out, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)


def _replace(dataset: Dataset, out: Path) -> None:
    """Write a dataset in place of what an interrupted attempt may have left: these steps start anew, not in between."""
    shutil.rmtree(out, ignore_errors=True)
    dataset.write_parquet(str(out))


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
