"""The whole Ray Data graph on one screen. Read this file second (rows.py first).

    notes -> hold_out -> Attribute                    -> attribute/data     relevance alone, to mask from many times
    notes -> hold_out -> Attribute -> Mask            -> mask/data          one stream: masked as soon as attributed
    notes -> hold_out -> match attribute/data -> Mask -> mask/data          the same from stored relevance
    mask/data -> unmasked                             -> attribute/data     to mask again, for an arm that was added
    notes -> hold_out -> count -> add_up              -> statistics/        words of the corpus, if an arm asks for them
    notes -> hold_out -> match attribute/data -> average -> add_up          the same with mean relevance
    corpus/labelled -> Attribute (occlusion) -> average -> add_up           words that matter in labelled notes
    mask/data -> Render                               -> train/rows         tokens of one student, all arms together
    notes -> hold_out -> Cut                          -> pretrain/rows
    notes -> hold_out -> Answer                       -> answer/data        the scorer's own answers
    answer/data -> Teach                              -> pseudo/data        the sure ones as tokens of one student
    corpus/labelled -> Score (or States -> Fit)       -> evaluate/<student>, calibrate/<student>
    corpus/labelled -> States                         -> states/<student>   of every layer
    layers of states/<student> -> Fit                 -> probe/<student>    what can be read off each layer

Blocks of `rows_per_block` notes are the unit of parallelism, of retry and of resume; only counts of words reach the
driver. The same graph runs on Ray (cluster.py) or in this process (inline.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.attribution import layers
from raypipe.masking.corpus_needs import CorpusNeeds
from raypipe.masking.counting import GRAMS, TYPES
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE
from raypipe.masking.tally import Tally, tally
from raypipe.masking.weights import weights_of_arm
from raypipe.models import loading
from raypipe.notes.corpus import Corpus
from raypipe.settings import config
from raypipe.settings.arms import masking_of
from raypipe.stream.frequencies import token_idf
from raypipe.stream.stages.answer import Answer, Teach
from raypipe.stream.stages.attribute import Attribute
from raypipe.stream.stages.count import add_up, average, count, leave_out_others
from raypipe.stream.stages.cut import Cut
from raypipe.stream.stages.hold_out import hold_out
from raypipe.stream.stages.mask import Mask, unmasked
from raypipe.stream.stages.match import as_note_or_relevance, match
from raypipe.stream.stages.probe import Fit
from raypipe.stream.stages.render import Render
from raypipe.stream.stages.score import Score
from raypipe.stream.stages.states import States
from raypipe.training.pseudo_labels import Class

if TYPE_CHECKING:
    from raypipe.stream.cluster import Cluster
    from raypipe.stream.inline import Inline

    Workers = Cluster | Inline  # Ray, or this process
Stream = Any  # ray.data.Dataset, or what stands in for it in this process: inline.Tables

# One block in, one block out, as Arrow: every other batch format changes column types on the way.
BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


def attribute(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Workers, out: Path) -> None:
    """Relevance of the notes for self-supervision, without their text."""
    with cluster.resumable(out):
        stream = _attributed(settings, corpus, scorer, cluster)
        stream.select_columns(rows.ATTRIBUTED.names).write_parquet(str(out), **rows.PARQUET)


def count_words(
    settings: config.Config, corpus: Corpus, asked: CorpusNeeds, cluster: Workers, pretrains: bool = False
) -> pa.Table:
    """Words and runs of words of the first `statistics.max_notes` notes for self-supervision, or for pretraining."""
    data = corpus.data.for_pretraining if pretrains else corpus.data
    n_notes = min(settings.statistics.max_notes, data.max_unlabelled or settings.statistics.max_notes)
    kwargs = {"longest": asked.longest, "phi_patterns": asked.phi_patterns}
    notes = _read(settings, corpus, corpus.last_hash_of(data, n_notes), cluster, pretrains)
    return _added_up(settings, notes.map_batches(count, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK), GRAMS, cluster)


def relevance_of_words(
    settings: config.Config, corpus: Corpus, scorer: config.Model, stored: Path, cluster: Workers
) -> pa.Table:
    """Mean relevance by word, over all notes for self-supervision."""
    notes = _with_relevance(settings, corpus, stored, cluster)
    kwargs = {"delta": 0.0, "layer": layer_of(settings.attribution, scorer)}
    by_word = notes.map_batches(average, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    return _added_up(settings, by_word, TYPES, cluster)


def importance_of_words(
    settings: config.Config, corpus: Corpus, scorer: config.Model, asked: CorpusNeeds, cluster: Workers
) -> pa.Table:
    """How often deleting a word costs the scorer its task, over the labelled training notes."""
    train = corpus.labels.filter(pc.equal(corpus.labels["split"], "train"))["note_id"]
    notes = _blocks(settings, cluster.parquet(str(corpus.labelled_path)))
    notes = notes.map_batches(
        leave_out_others, fn_kwargs={"note_ids": frozenset(train.to_pylist())}, num_cpus=0.5, **BLOCK
    )
    occlusion = {"method": "occlusion", "sign": "positive", "layer": 0, "window": 1}
    deleting = settings.attribution.model_copy(update=occlusion)
    relevance = _attribute(settings, notes, corpus, scorer, deleting, cluster)
    by_word = relevance.map_batches(average, fn_kwargs={"delta": asked.delta}, num_cpus=0.5, **BLOCK)
    return _added_up(settings, by_word, TYPES, cluster)


def mask(
    settings: config.Config,
    corpus: Corpus,
    scorer: config.Model,
    cluster: Workers,
    out: Path,
    stored: Path | None,
    statistics: Path | None,
) -> None:
    """Masking plans of all arms, with the relevance and the text that they belong to."""
    arms = masking_of(settings)
    layer = layer_of(settings.attribution, scorer) if RELEVANCE in needs(arms) else None
    args = (arms, settings.seed, None if statistics is None else str(statistics), layer)
    if stored is not None and RELEVANCE in needs(arms):
        stream = _with_relevance(settings, corpus, stored, cluster)
        _replace(stream.map_batches(Mask, fn_constructor_args=args, **cluster.light(), **BLOCK), out, **rows.PARQUET)
        return
    with cluster.resumable(out):
        is_ranked = RELEVANCE in needs(arms)
        stream = _attributed(settings, corpus, scorer, cluster) if is_ranked else _notes(settings, corpus, cluster)
        stream.map_batches(Mask, fn_constructor_args=args, **cluster.light(), **BLOCK).write_parquet(
            str(out), **rows.PARQUET
        )


def keep_relevance(masked: Path, cluster: Workers, out: Path) -> None:
    """The relevance that lies with masking plans, by itself."""
    stored = cluster.parquet(str(masked), columns=rows.ATTRIBUTED.names)
    _replace(stored.map_batches(unmasked, num_cpus=0.5, **BLOCK), out, **rows.PARQUET)


def render(
    settings: config.Config,
    corpus: Corpus,
    student: config.Model,
    sentinels: Sequence[str],
    masked: Path,
    cluster: Workers,
    out: Path,
) -> None:
    """Plans of all arms to training rows of one student."""
    arms, planned = masking_of(settings), tally(masked)
    weights = {name: weights_of_arm(masking, planned.get(name, Tally())) for name, masking in arms.items()}
    plans = _blocks(settings, cluster.parquet(str(masked), columns=["note_id", "text", "plans"]))
    # LoRA trains linear layers alone: a reserved token's embedding would stay noise
    args = (student, settings.prompt, arms, corpus.tasks, sentinels, settings.train.lora is None, weights)
    _replace(plans.map_batches(Render, fn_constructor_args=args, **cluster.spread(), **BLOCK), out)


def cut(settings: config.Config, corpus: Corpus, tokenizer: config.Model, cluster: Workers, out: Path) -> None:
    """Notes to training rows of plain text."""
    notes = _read(settings, corpus, None, cluster, pretrains=True)
    args = (tokenizer, settings.pretrain)
    _replace(notes.map_batches(Cut, fn_constructor_args=args, **cluster.spread(), **BLOCK), out)


def score(
    settings: config.Config, corpus: Corpus, model: config.Model, split: str, cluster: Workers, out: Path
) -> None:
    """Labelled notes of a split to predictions."""
    if settings.evaluation.mode == "head":
        _score_by_head(settings, corpus, model, split, cluster, out)
        return
    notes = _blocks(settings, cluster.parquet(str(corpus.labelled_path)))
    args = (model, settings.prompt, corpus.tasks, str(corpus.labels_path), settings.evaluation, split)
    _replace(notes.map_batches(Score, fn_constructor_args=args, **cluster.on_devices(), **BLOCK), out)


def _score_by_head(
    settings: config.Config, corpus: Corpus, model: config.Model, split: str, cluster: Workers, out: Path
) -> None:
    """The same by a classifier for each task on the last layer's last state: a probe of that layer alone."""
    head = settings.probe.model_copy(update={"layers": (1.0,), "pooling": ("last",), "control": False})
    evaluation = settings.evaluation.model_copy(update={"split": split})
    asked = settings.model_copy(update={"probe": head, "evaluation": evaluation})
    stored, probed = out.parent / "states", out.parent / "probed" / "data"
    states(asked, corpus, model, cluster, stored)
    probed.parent.mkdir(exist_ok=True)
    probe(asked, corpus, stored, cluster, probed)
    out.mkdir(exist_ok=True)
    pq.write_table(pq.read_table(probed).select(rows.PREDICTIONS.names), out / "part-00000.parquet", compression="zstd")
    for folder in (stored, probed.parent):
        shutil.rmtree(folder)


def states(settings: config.Config, corpus: Corpus, model: config.Model, cluster: Workers, out: Path) -> None:
    """Labelled notes of training and evaluation to the states of every layer."""
    notes = _blocks(settings, cluster.parquet(str(corpus.labelled_path)))
    splits = ("train", settings.evaluation.split)
    args = (model, settings.prompt, corpus.tasks, str(corpus.labels_path), splits, settings.probe)
    _replace(notes.map_batches(States, fn_constructor_args=args, **cluster.on_devices(), **BLOCK), out)


def probe(settings: config.Config, corpus: Corpus, stored: Path, cluster: Workers, out: Path) -> None:
    """States of one model to what classifiers trained on them answer: one unit of work per layer and pooling."""
    layers = rows.layers_of(pq.read_schema(sorted(stored.glob("*.parquet"))[0]))
    units = [{"layer": layer, "pooling": pooling} for layer in layers for pooling in settings.probe.pooling]
    listed = out.parent / "units.parquet"
    pq.write_table(pa.Table.from_pylist(units), listed)
    work = cluster.parquet(str(listed)).repartition(target_num_rows_per_block=1)
    notes = str(corpus.labelled_path), str(corpus.labels_path)
    args = (str(stored), *notes, corpus.tasks, settings.evaluation.split, settings.probe, settings.seed)
    _replace(work.map_batches(Fit, fn_constructor_args=args, **cluster.spread(), **BLOCK), out)


def answer(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Workers, out: Path) -> None:
    """The scorer's answers to all tasks of the notes for self-supervision."""
    threads = max(1, int(settings.resources.cpus_per_actor))
    args = (scorer, settings.prompt, corpus.tasks, settings.evaluation.batch_tokens, threads)
    notes = _notes(settings, corpus, cluster)
    _replace(notes.map_batches(Answer, fn_constructor_args=args, **cluster.on_devices(), **BLOCK), out)


def teach(
    settings: config.Config,
    corpus: Corpus,
    student: config.Model,
    answers: Path,
    kept: Mapping[str, tuple[float, Mapping[Class, float]]],
    cluster: Workers,
    out: Path,
) -> None:
    """Answers that each arm keeps to training rows."""
    notes = _blocks(settings, cluster.parquet(str(answers)))
    args = (student, settings.prompt, corpus.tasks, kept)
    _replace(notes.map_batches(Teach, fn_constructor_args=args, **cluster.spread(), **BLOCK), out)


def layer_of(attribution: config.Attribution, scorer: config.Model) -> int:
    """The number of the layer that masking reads."""
    return layers.masking_layer(attribution, loading.check(scorer).num_hidden_layers)


def _attributed(settings: config.Config, corpus: Corpus, scorer: config.Model, cluster: Workers) -> Stream:
    kept = settings.attribution
    if kept.keep == "all":
        kept = kept.model_copy(update={"layer": "all"})
    return _attribute(settings, _notes(settings, corpus, cluster), corpus, scorer, kept, cluster)


def _attribute(
    settings: config.Config,
    notes: Stream,
    corpus: Corpus,
    scorer: config.Model,
    attribution: config.Attribution,
    cluster: Workers,
) -> Stream:
    threads = max(1, int(settings.resources.cpus_per_actor))
    idf_V = token_idf(corpus, loading.load_tokenizer(scorer)) if attribution.method == "tfidf" else None
    args = (scorer, attribution, settings.prompt, corpus.tasks, settings.seed, threads, idf_V)
    return notes.map_batches(Attribute, fn_constructor_args=args, **cluster.on_devices(), **BLOCK)


def _with_relevance(settings: config.Config, corpus: Corpus, stored: Path, cluster: Workers) -> Stream:
    notes = _notes(settings, corpus, cluster).map_batches(
        as_note_or_relevance, fn_kwargs={"is_stored": False}, num_cpus=0.5, **BLOCK
    )
    relevance = cluster.parquet(str(stored)).map_batches(as_note_or_relevance, fn_kwargs={"is_stored": True}, **BLOCK)
    pairs = notes.union(relevance).repartition(max(1, int(cluster.cpus)), keys=["note_id"])
    return pairs.map_batches(match, num_cpus=0.5, **BLOCK)


def _added_up(settings: config.Config, tables: Stream, schema: pa.Schema, cluster: Workers) -> pa.Table:
    """Tables of masking/counting.py as one. All rows of a word meet in one block, so each worker adds up some words."""
    words = tables.repartition(max(1, int(cluster.cpus)), keys=["gram"])
    kwargs = {"min_notes": settings.statistics.min_notes}
    summed = words.map_batches(add_up, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    blocks = summed.iter_batches(batch_size=None, batch_format="pyarrow")
    return pa.concat_tables([schema.empty_table(), *(block.cast(schema) for block in blocks if block.num_rows)])


def _notes(settings: config.Config, corpus: Corpus, cluster: Workers) -> Stream:
    """Notes for self-supervision."""
    return _read(settings, corpus, corpus.last_hash, cluster)


def _read(
    settings: config.Config, corpus: Corpus, last_hash: int | None, cluster: Workers, pretrains: bool = False
) -> Stream:
    """Notes; those of validation and test patients, and those beyond the limit, come marked, without their text."""
    data = corpus.data.for_pretraining if pretrains else corpus.data
    notes = cluster.notes(data, settings.resources.rows_per_block)
    apart = {"pretraining_share": data.pretraining_share, "pretrains": pretrains}
    kwargs = {"guard": corpus.guard, "last_hash": last_hash, **apart}
    return notes.map_batches(hold_out, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)


def _replace(dataset: Stream, out: Path, **written: Any) -> None:
    """Write a dataset in place of what an interrupted attempt may have left: these steps start anew, not in between."""
    shutil.rmtree(out, ignore_errors=True)
    dataset.write_parquet(str(out), **written)


def _blocks(settings: config.Config, dataset: Stream) -> Stream:
    # Ray's Parquet reader may return a whole folder as one block, and one actor would get all the work
    return dataset.repartition(target_num_rows_per_block=settings.resources.rows_per_block)
