"""What makes each step that is no training: (run, the step's folder, student) -> facts for its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import ExitCode, InputError, RowError
from raypipe.masking import Masker
from raypipe.masking.corpus_needs import corpus_needs
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE, TYPE_RELEVANCE
from raypipe.masking.tally import Tally, tally
from raypipe.models import loading
from raypipe.notes import storage
from raypipe.runs import corpus_counts
from raypipe.runs.audit import audit, pairs
from raypipe.runs.checking.of_model import of_tokens
from raypipe.runs.names import LABELS, SCORER
from raypipe.settings import config
from raypipe.settings.arms import PRETRAINING, masking_of, pseudo_of
from raypipe.settings.sections.evaluation import Split
from raypipe.stream import pipeline
from raypipe.stream.stages.render import counts
from raypipe.training import examples, pseudo_labels, supervised

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run

CALIBRATION: Split = "dev"  # the split that prediction sets are calibrated on


def pretraining_rows(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """A tokenizer, and the notes cut into rows of plain text."""
    if run.settings.pretrain is None:
        raise InputError("model.path is pretrain, but the config has no `pretrain` section")
    run.say("pretrain: a tokenizer, and notes cut into rows")
    loading.train_tokenizer(run.corpus.texts(pretrains=True), run.settings.pretrain, Path(run.tokenizer.path))
    with_tokenizer = run.settings.model_copy(update={"model": run.tokenizer, "prompt": run.prompt})
    if problems := list(of_tokens(with_tokenizer, run.corpus.tasks)):  # before hours of training
        raise InputError(problems)
    pipeline.cut(run.job, run.tokenizer, folder.data)
    audit(folder.path, run.corpus.note_ids(pretrains=True), examples.receipts(folder.data))
    return {"beside": ["../tokenizer"]}


def finetuning_rows(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """The labelled notes as fine-tuning rows, in the folders train and dev."""
    no_room = {split: _write_supervised(run, split, folder) for split in ("train", "dev")}
    return {"notes_without_room": no_room}


def _write_supervised(run: Run, split: str, folder: StepFolder) -> int:
    """Fine-tuning rows of a split; few by nature, so this process writes them. Returns how many notes had no room."""
    encoder, options = run.encoder(), {task.id: task.options for task in run.corpus.tasks}
    out, n_skipped = [], 0
    for note, labels in run.corpus.labelled(split):
        out.append(examples.receipt(note["note_id"]))
        try:
            encoded = encoder.encode(note["note_id"], note["text"], sorted(labels))
        except RowError:  # the questions alone fill the context: nothing to learn from
            n_skipped += 1
            continue
        answers = {task_id: options[task_id].index(label) for task_id, label in labels.items()}
        for part, row in enumerate(supervised.training_rows(encoded, answers, encoder.eos_id)):
            out.append({"arm": LABELS, "key": f"{note['note_id']}\t{part}", "draw": 0, **row})
    if ids := pc.unique(run.corpus.labels_of(split)["note_id"]):
        examples.write(out, folder.output / split / "rows.parquet")
        audit(folder.path, ids, examples.receipts(folder.output / split))
    return n_skipped


def attribute(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """Relevance of the unlabelled notes alone; `mask` then starts from it, as often as masking changes."""
    run.say(f"attribute: {run.cluster.actors} x {run.settings.attribution.method}")
    pipeline.attribute(run.job, run.model(SCORER), folder.data)
    return _audited(run, folder)


def asked_of_the_corpus(settings: config.Config) -> dict[str, Any]:
    """What the statistics depend on beside config sections: what the arms ask for, and the files that they read."""
    asks = corpus_needs(masking_of(settings))
    paths = [*asks.lexicons, settings.statistics.general_counts]
    files = {path: storage.listing(path, "") for path in paths if path and path != PRETRAINING}
    # relevance may be stored at all layers; only this one is averaged
    layer = {"layer": settings.attribution.layer} if TYPE_RELEVANCE in asks.needs else {}
    return {"asked": asks.settings(), "files": files, **layer}


def statistics(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """Counts over the corpus that some arm asks for."""
    arms = masking_of(run.settings)
    asks = corpus_needs(arms)
    run.say(f"statistics: {', '.join(sorted(asks.needs))}")
    of_corpus = corpus_counts.compute(run, asks)
    Masker(arms, run.settings.seed, of_corpus)  # what an arm cannot work with is said here, not by every worker
    of_corpus.save(folder.data)
    return {"words": len(of_corpus.words), "runs_of_words": len(of_corpus.ngrams)}


def mask(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """Masking plans of all arms: from stored relevance if there is any, else attribution streams into masking."""
    arms = masking_of(run.settings)
    relevance = run.step("attribute")
    stored = relevance.data if relevance.done else None
    counted = run.step("statistics").data if corpus_needs(arms).needs else None
    run.say(f"mask: {'stored relevance' if stored else run.settings.attribution.method} -> {', '.join(arms)}")
    pipeline.mask(run.job, run.model(SCORER), folder.data, stored, counted)
    of_arms = {arm: of_arm.facts for arm, of_arm in tally(folder.data).items()}
    is_ranked = RELEVANCE in needs(arms)
    layer = pipeline.layer_of(run.settings.attribution, run.model(SCORER)) if is_ranked else None
    return _audited(run, folder) | {"arms": of_arms, "layer": layer}


def planned(masks: StepFolder) -> dict[str, Tally]:
    """Sums over the plans of each arm, as `mask` has counted them."""
    data = masks.data
    try:
        return {arm: Tally.of_facts(facts) for arm, facts in masks.manifest["arms"].items()}
    except KeyError:  # of an earlier version
        return tally(data)


def keep_relevance(run: Run, folder: StepFolder) -> None:
    """Store the relevance that lies with masks about to be made again: attribution is the expensive part of them."""
    stored = run.step("attribute")
    if not stored.done and RELEVANCE in needs(masking_of(run.settings)):
        pipeline.keep_relevance(run.job, folder.data, stored.open().data)
        stored.finish(**_audited(run, stored), seconds=folder.manifest["seconds"])  # of attribution and masking


def masked_rows(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """Masked examples of all arms as tokens of the student."""
    run.say("train/rows: masked examples as tokens")
    masks = run.needed("mask")
    masked, of_arms = masks.data, planned(masks)
    pipeline.render(run.job, run.tokenizer, run.sentinels, masked, of_arms, folder.data)
    audit(folder.path, rows.read(masked, ["note_id"])["note_id"], examples.receipts(folder.data))
    arms = counts(folder.data, of_arms)
    return {"rows": sum(of_arm["rows"] for of_arm in arms.values()), "arms": arms}


def answer(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """The scorer's answers to all tasks of the unlabelled notes."""
    run.say("answer: the scorer answers the tasks of unlabelled notes")
    pipeline.answer(run.job, run.model(SCORER), folder.data)
    audit(folder.path, run.corpus.note_ids(), rows.read(folder.data, ["note_id"])["note_id"])
    return {}


def pseudo_rows(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """The scorer's sure answers as training rows of the arms that learn them."""
    arms, answers = pseudo_of(run.settings), run.needed("answer").data
    run.say(f"pseudo: sure answers -> {', '.join(arms)}")
    shares = {arm: pseudo_labels.keep_shares(answers, of_arm, run.corpus.tasks) for arm, of_arm in arms.items()}
    pipeline.teach(run.job, run.tokenizer, answers, shares, folder.data)
    audit(folder.path, rows.read(answers, ["note_id"])["note_id"], examples.receipts(folder.data))
    return {"arms": {arm: pseudo_labels.tally(answers, of_arm) for arm, of_arm in shares.items()}}


def evaluate(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """Predictions of a student on the evaluation split."""
    return _score(run, folder, student, run.settings.evaluation.split)


def calibrate(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """Predictions of a student on dev, from which prediction sets are calibrated."""
    return _score(run, folder, student, CALIBRATION)


def _score(run: Run, folder: StepFolder, student: str, split: str) -> dict[str, Any]:
    student = student or SCORER
    run.say(f"{folder.path.parent.name}/{student}: scoring the {split} notes")
    pipeline.score(run.job, run.model(student), split, folder.data)
    predicted, labels = rows.read(folder.data, ["task_id", "note_id", "predicted"]), run.corpus.labels_of(split)
    if run.settings.evaluation.mode == "head":  # a task that has nothing to train a classifier on has no answers
        labels = labels.filter(pc.is_in(labels["task_id"], pc.unique(run.corpus.labels_of("train")["task_id"])))
    audit(folder.path, pairs(labels), pairs(predicted), "labels")
    without_room = predicted["predicted"].null_count  # those count as wrong
    return {"predictions": len(predicted), "without_room": without_room}


def n_notes(run: Run) -> int:
    """Notes that a stream over all of them reads; every one comes out."""
    return int(run.corpus.facts["notes"])


def unknown(run: Run) -> None:
    """Of a step whose output can be counted while it grows, but not beforehand."""


def n_answers(run: Run) -> int:
    """Labels of the evaluation split."""
    return run.corpus.labels_of(run.settings.evaluation.split).num_rows


def _audited(run: Run, folder: StepFolder) -> dict[str, Any]:
    """Check that every note came out once; write the dead letters and count them; too many end the run."""
    ids = rows.read(folder.data, ["note_id", "error"])
    audit(folder.path, run.corpus.note_ids(), ids["note_id"])
    failed = ids.filter(pc.starts_with(pc.fill_null(ids["error"], ""), "E_"))
    by_code = rows.counts(ids["error"].drop_null())
    letters = failed.append_column("step", pa.array([folder.path.name] * len(failed), pa.string()))
    rows.write(letters.select(rows.DEAD_LETTERS.names), folder.path / "dead_letters.parquet")
    n_tried = len(failed) + ids["error"].null_count  # not those held out or beyond `max_unlabelled`
    if len(failed) > run.settings.data.max_error_rate * max(1, n_tried):
        what = f"{len(failed)} of {n_tried} notes failed ({by_code}), more than data.max_error_rate allows"
        raise InputError(what, ExitCode.DATA)
    return {"notes": len(ids), "errors": by_code}
