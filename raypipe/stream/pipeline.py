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
from dataclasses import dataclass, replace
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
from raypipe.masking.tally import Tally
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

# One block in, one block out, which is Ray's default, as Arrow: every other format changes column types on the way.
BLOCK: dict[str, Any] = {"batch_format": "pyarrow"}

SHUFFLED = 16_384  # notes that meet their relevance in one worker, about: 100 MB at two tasks and one layer


@dataclass(frozen=True)
class Job:
    """What every stream works on, and with."""

    settings: config.Config
    corpus: Corpus
    workers: Workers


def attribute(job: Job, scorer: config.Model, out: Path) -> None:
    """Relevance of the notes for self-supervision, without their text."""
    with job.workers.resumable(out):
        stream = _attributed(job, scorer)
        stream.select_columns(rows.ATTRIBUTED.names).write_parquet(str(out), **rows.PARQUET)


def count_words(job: Job, needs_of_arms: CorpusNeeds, pretrains: bool = False) -> pa.Table:
    """Words and runs of words of the first `statistics.max_notes` notes for self-supervision, or for pretraining."""
    data = job.corpus.pretraining if pretrains else job.corpus.data
    n_notes = min(job.settings.statistics.max_notes, data.max_unlabelled or job.settings.statistics.max_notes)
    kwargs = {"longest": needs_of_arms.longest, "phi_patterns": needs_of_arms.phi_patterns}
    notes = _read(job, job.corpus.last_hash_of(data, n_notes), pretrains)
    return _added_up(job, notes.map_batches(count, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK), GRAMS)


def relevance_of_words(job: Job, scorer: config.Model, stored: Path) -> pa.Table:
    """Mean relevance by word, over all notes for self-supervision."""
    notes = _with_relevance(job, stored)
    kwargs = {"delta": 0.0, "layer": layer_of(job.settings.attribution, scorer)}
    by_word = notes.map_batches(average, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    return _added_up(job, by_word, TYPES)


def importance_of_words(job: Job, scorer: config.Model, needs_of_arms: CorpusNeeds) -> pa.Table:
    """How often deleting a word costs the scorer its task, over the labelled training notes."""
    train = job.corpus.labels.filter(pc.equal(job.corpus.labels["split"], "train"))["note_id"]
    notes = _blocks(job, job.workers.parquet(str(job.corpus.labelled_path)))
    kwargs = {"note_ids": frozenset(train.to_pylist())}
    notes = notes.map_batches(leave_out_others, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    occlusion = {"method": "occlusion", "sign": "positive", "layer": 0, "window": 1}
    deleting = job.settings.attribution.model_copy(update=occlusion)
    relevance = _attribute(job, notes, scorer, deleting)
    by_word = relevance.map_batches(average, fn_kwargs={"delta": needs_of_arms.delta}, num_cpus=0.5, **BLOCK)
    return _added_up(job, by_word, TYPES)


def mask(
    job: Job,
    scorer: config.Model,
    out: Path,
    stored: Path | None,
    statistics: Path | None,
) -> None:
    """Masking plans of all arms, with the relevance and the text that they belong to."""
    arms = masking_of(job.settings)
    layer = layer_of(job.settings.attribution, scorer) if RELEVANCE in needs(arms) else None
    args = (arms, job.settings.seed, None if statistics is None else str(statistics), layer)
    if stored is not None and RELEVANCE in needs(arms):
        stream = _with_relevance(job, stored)
        masked = stream.map_batches(Mask, fn_constructor_args=args, **job.workers.light(), **BLOCK)
        _replace(masked, out, rows.PARQUET)
        return
    with job.workers.resumable(out):
        is_ranked = RELEVANCE in needs(arms)
        stream = _attributed(job, scorer) if is_ranked else _notes(job)
        stream.map_batches(Mask, fn_constructor_args=args, **job.workers.light(), **BLOCK).write_parquet(
            str(out), **rows.PARQUET
        )


def keep_relevance(job: Job, masked: Path, out: Path) -> None:
    """The relevance that lies with masking plans, by itself."""
    stored = job.workers.parquet(str(masked), columns=rows.ATTRIBUTED.names)
    _replace(stored.map_batches(unmasked, num_cpus=0.5, **BLOCK), out, rows.PARQUET)


def render(
    job: Job,
    student: config.Model,
    sentinels: Sequence[str],
    masked: Path,
    planned: Mapping[str, Tally],
    out: Path,
) -> None:
    """Plans of all arms to training rows of one student. `planned`: sums over the plans of each arm."""
    arms = masking_of(job.settings)
    weights = {name: weights_of_arm(masking, planned.get(name, Tally())) for name, masking in arms.items()}
    plans = _blocks(job, job.workers.parquet(str(masked), columns=["note_id", "text", "plans"]))
    # LoRA trains linear layers alone: a reserved token's embedding would stay noise
    args = (student, job.settings.prompt, arms, job.corpus.tasks, sentinels, job.settings.train.lora is None, weights)
    _replace(plans.map_batches(Render, fn_constructor_args=args, **job.workers.spread(), **BLOCK), out)


def cut(job: Job, tokenizer: config.Model, out: Path) -> None:
    """Notes to training rows of plain text."""
    notes = _read(job, None, pretrains=True)
    args = (tokenizer, job.settings.pretrain)
    _replace(notes.map_batches(Cut, fn_constructor_args=args, **job.workers.spread(), **BLOCK), out)


def score(job: Job, model: config.Model, split: str, out: Path) -> None:
    """Labelled notes of a split to predictions."""
    if job.settings.evaluation.mode == "head":
        _score_by_head(job, model, split, out)
        return
    notes = _blocks(job, job.workers.parquet(str(job.corpus.labelled_path)))
    args = (model, job.settings.prompt, job.corpus.tasks, str(job.corpus.labels_path), job.settings.evaluation, split)
    _replace(notes.map_batches(Score, fn_constructor_args=args, **job.workers.on_devices(), **BLOCK), out)


def _score_by_head(job: Job, model: config.Model, split: str, out: Path) -> None:
    """The same by a classifier for each task on the last layer's last state: a probe of that layer alone."""
    head = job.settings.probe.model_copy(update={"layers": (1.0,), "pooling": ("last",), "control": False})
    evaluation = job.settings.evaluation.model_copy(update={"split": split})
    by_head = replace(job, settings=job.settings.model_copy(update={"probe": head, "evaluation": evaluation}))
    stored, probed = out.parent / "states", out.parent / "probed" / "data"
    states(by_head, model, stored)
    probed.parent.mkdir(exist_ok=True)
    probe(by_head, stored, probed)
    out.mkdir(exist_ok=True)
    rows.write(rows.read(probed).select(rows.PREDICTIONS.names), out / "part-00000.parquet")
    for folder in (stored, probed.parent):
        shutil.rmtree(folder)


def states(job: Job, model: config.Model, out: Path) -> None:
    """Labelled notes of training and evaluation to the states of every layer."""
    notes = _blocks(job, job.workers.parquet(str(job.corpus.labelled_path)))
    splits = ("train", job.settings.evaluation.split)
    args = (model, job.settings.prompt, job.corpus.tasks, str(job.corpus.labels_path), splits, job.settings.probe)
    _replace(notes.map_batches(States, fn_constructor_args=args, **job.workers.on_devices(), **BLOCK), out)


def probe(job: Job, stored: Path, out: Path) -> None:
    """States of one model to what classifiers trained on them answer: one unit of work per layer and pooling."""
    layers = rows.layers_of(pq.read_schema(sorted(stored.glob("*.parquet"))[0]))
    units = [{"layer": layer, "pooling": pooling} for layer in layers for pooling in job.settings.probe.pooling]
    listed = out.parent / "units.parquet"
    rows.write(pa.Table.from_pylist(units), listed)
    work = job.workers.parquet(str(listed)).repartition(target_num_rows_per_block=1)
    notes = str(job.corpus.labelled_path), str(job.corpus.labels_path)
    args = (str(stored), *notes, job.corpus.tasks, job.settings.evaluation.split, job.settings.probe, job.settings.seed)
    _replace(work.map_batches(Fit, fn_constructor_args=args, **job.workers.spread(), **BLOCK), out)


def answer(job: Job, scorer: config.Model, out: Path) -> None:
    """The scorer's answers to all tasks of the notes for self-supervision."""
    args = (scorer, job.settings.prompt, job.corpus.tasks, job.settings.evaluation.batch_tokens, job.workers.threads)
    notes = _notes(job)
    _replace(notes.map_batches(Answer, fn_constructor_args=args, **job.workers.on_devices(), **BLOCK), out)


def teach(
    job: Job,
    student: config.Model,
    answers: Path,
    shares: Mapping[str, tuple[float, Mapping[Class, float]]],
    out: Path,
) -> None:
    """Answers that each arm keeps to training rows."""
    notes = _blocks(job, job.workers.parquet(str(answers)))
    args = (student, job.settings.prompt, job.corpus.tasks, shares)
    _replace(notes.map_batches(Teach, fn_constructor_args=args, **job.workers.spread(), **BLOCK), out)


def layer_of(attribution: config.Attribution, scorer: config.Model) -> int:
    """The number of the layer that masking reads."""
    return layers.masking_layer(attribution, loading.check(scorer).num_hidden_layers)


def _attributed(job: Job, scorer: config.Model) -> Stream:
    attribution = job.settings.attribution
    if attribution.keep == "all":
        attribution = attribution.model_copy(update={"layer": "all"})
    return _attribute(job, _notes(job), scorer, attribution)


def _attribute(
    job: Job,
    notes: Stream,
    scorer: config.Model,
    attribution: config.Attribution,
) -> Stream:
    idf_V = token_idf(job.corpus, loading.load_tokenizer(scorer)) if attribution.method == "tfidf" else None
    args = (scorer, attribution, job.settings.prompt, job.corpus.tasks, job.settings.seed, job.workers.threads, idf_V)
    return notes.map_batches(Attribute, fn_constructor_args=args, **job.workers.on_devices(), **BLOCK)


def _with_relevance(job: Job, stored: Path) -> Stream:
    notes = _notes(job).map_batches(as_note_or_relevance, fn_kwargs={"is_stored": False}, num_cpus=0.5, **BLOCK)
    relevance = job.workers.parquet(str(stored))
    relevance = relevance.map_batches(as_note_or_relevance, fn_kwargs={"is_stored": True}, **BLOCK)
    n_parts = max(1, int(job.workers.cpus), job.corpus.facts["notes"] // SHUFFLED)
    pairs = notes.union(relevance).repartition(n_parts, keys=["note_id"])
    return pairs.map_batches(match, num_cpus=0.5, **BLOCK)


def _added_up(job: Job, tables: Stream, schema: pa.Schema) -> pa.Table:
    """Tables of masking/counting.py as one. All rows of a word meet in one block, so each worker adds up some words."""
    words = tables.repartition(max(1, int(job.workers.cpus)), keys=["gram"])
    kwargs = {"min_notes": job.settings.statistics.min_notes}
    summed = words.map_batches(add_up, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
    blocks = summed.iter_batches(batch_size=None, batch_format="pyarrow")
    return pa.concat_tables([schema.empty_table(), *(block.cast(schema) for block in blocks if block.num_rows)])


def _notes(job: Job) -> Stream:
    """Notes for self-supervision."""
    return _read(job, job.corpus.last_hash)


def _read(job: Job, last_hash: int | None, pretrains: bool = False) -> Stream:
    """Notes; those of validation and test patients, and those beyond the limit, come marked, without their text."""
    data = job.corpus.pretraining if pretrains else job.corpus.data
    notes = job.workers.notes(data, job.settings.resources.rows_per_block)
    apart = {"pretraining_share": data.pretraining_share, "pretrains": pretrains}
    kwargs = {"guard": job.corpus.guard, "last_hash": last_hash, **apart}
    return notes.map_batches(hold_out, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)


def _replace(dataset: Stream, out: Path, written: Mapping[str, Any] = rows.WRITE) -> None:
    """Write a dataset in place of what an interrupted attempt may have left: these steps start anew, not in between."""
    shutil.rmtree(out, ignore_errors=True)
    dataset.write_parquet(str(out), **written)


def _blocks(job: Job, dataset: Stream) -> Stream:
    # Ray's Parquet reader may return a whole folder as one block, and one actor would get all the work
    return dataset.repartition(target_num_rows_per_block=job.settings.resources.rows_per_block)
