"""The steps of a run, in the order of the sentence; each may be called alone, and resumes.

    pretrain -> finetune (the scorer) -> attribute and mask, in one stream -> train -> finetune -> evaluate -> report

Before `mask` stands `statistics`, if an arm asks for counts over the corpus.

An arm is one line of the final table: how its student learns from unlabelled notes before it sees the labels. All arms
share the backbone, the labels, the fine-tuning settings and the scorer's relevance.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.notes import storage
from raypipe.runs import corpus_counts, probing
from raypipe.settings import config, configfile
from raypipe.stream import pipeline
from raypipe.settings.arms import PRETRAINING, masking_of, pseudo_of
from raypipe.runs.check import of_tokens
from raypipe.errors import ExitCode, InputError, Problem, RowError
from raypipe.stream.inline import Inline
from raypipe.masking import Masker
from raypipe.masking.corpus_needs import corpus_needs
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import IMPORTANCE, RELEVANCE, TYPE_RELEVANCE
from raypipe.masking.tally import tally
from raypipe.models import loading
from raypipe.runs.run import SCORER, Run
from raypipe.runs.folder import Step, clear, read_settings, settings_of
from raypipe.stream.stages.render import counts
from raypipe.training import examples, pseudo_labels, supervised, trainer

LABELS = "labels"  # the "arm" of fine-tuning rows: all arms share them
TEXT = "text"  # the "arm" of pretraining rows
CALIBRATION: config.Split = "dev"  # the split that prediction sets are calibrated on


def pretrain(run: Run) -> None:
    """Train a tokenizer and a small decoder from scratch on plain notes."""
    _fit(run, [_pretrain_stage(run)])


def finetune(run: Run, arm: str = SCORER) -> None:
    """Supervised fine-tuning: of the backbone (the scorer), or of an arm's student after reconstruction."""
    run = run.of(arm)
    _need_backbone(run)
    if arm in run.settings.arms and not run.settings.arms[arm].finetune:
        raise InputError([Problem(f"arms.{arm}", "has `finetune: false`: there is nothing to fine-tune")])
    if run.reconstructs(arm):
        run.needed(f"train/{arm}")
    _fit(run, [_finetune_stage(run, student) for student in (run.students(arm) if arm != SCORER else [SCORER])])


def train(run: Run, arm: str) -> None:
    """Reconstruction: the arm's student learns to fill in what its masking hid, or the scorer's answers."""
    run = run.of(arm)
    _need_backbone(run)
    if run.settings.arms[arm].masking is not None:
        run.needed("mask")
        render(run)
    else:
        pseudo_label(run)
    _fit(run, [_train_stage(run, arm)])


def attribute(run: Run) -> None:
    """Relevance of the unlabelled notes alone; `mask` then starts from it, as often as masking changes."""
    step = run.step("attribute")
    if not step.done:
        run.needed(f"finetune/{SCORER}")
        run.say(f"attribute: {run.cluster.actors} x {run.settings.attribution.method}")
        pipeline.attribute(run.settings, run.corpus, run.model(SCORER), run.cluster, step.data)
        _finish_notes(run, step)


def mask(run: Run) -> None:
    """Masking plans of all arms: from stored relevance if there is any, else attribution streams into masking."""
    arms = masking_of(run.settings)
    if arms and not run.is_done("mask"):
        if needs(arms) & {RELEVANCE, TYPE_RELEVANCE, IMPORTANCE}:
            run.needed(f"finetune/{SCORER}")
        if run.lacks_arms("mask") and RELEVANCE in needs(arms):
            _keep_relevance(run)
        known, step = corpus_statistics(run), _renewed(run, "mask")
        stored = run.step("attribute").data if run.is_done("attribute") else None
        run.say(f"mask: {'stored relevance' if stored else run.settings.attribution.method} -> {', '.join(arms)}")
        pipeline.mask(run.settings, run.corpus, run.model(SCORER), run.cluster, step.data, stored, known)
        ratios = {arm: {"plans": t.plans, "ratio": round(t.ratio, 4)} for arm, t in tally(step.data).items()}
        _finish_notes(run, step, arms=ratios)
    for variant in run.all_variants():
        mask(variant)


def corpus_statistics(run: Run) -> Path | None:
    """Counts over the corpus that some arm asks for, if any; made once. Attributes first if relevance is averaged."""
    arms = masking_of(run.settings)
    wanted = corpus_needs(arms)
    if not wanted.needs:
        return None
    if TYPE_RELEVANCE in wanted.needs:
        attribute(run)
    settings = settings_of("statistics", run.settings, run.corpus.listing) | {"asked": wanted.settings()}
    if wanted.needs & {TYPE_RELEVANCE, IMPORTANCE}:
        settings = settings_of("attribute", run.settings, run.corpus.listing) | settings
    if TYPE_RELEVANCE in wanted.needs:
        settings["layer"] = run.settings.attribution.layer  # of all that may be stored, one is averaged
    files = [*wanted.lexicons, run.settings.statistics.general_counts]
    settings["files"] = {path: storage.listing(path, "") for path in files if path and path != PRETRAINING}
    step = run.finished("statistics", settings) or _grown(run.folder / "statistics", settings)
    if not step.done:
        run.say(f"statistics: {', '.join(sorted(wanted.needs))}")
        attributed = run.step("attribute").data
        models = run.backbone, run.model(SCORER)
        known = corpus_counts.compute(run.settings, run.corpus, wanted, *models, attributed, run.cluster)
        Masker(arms, run.settings.seed, known)  # what an arm cannot work with is said here, not by every worker
        known.save(step.data)
        step.finish(words=len(known.words), runs_of_words=len(known.ngrams))
    return step.data


def _grown(folder: Path, settings: dict[str, Any]) -> Step:
    """The folder of statistics to write in; it is made anew if arms have come to ask for more of the same corpus."""
    if (folder / "manifest.json").exists():
        recorded = read_settings(folder)
        same = configfile.common(settings, recorded) | {"asked": recorded["asked"]}
        if not configfile.changed_keys(recorded, same):
            clear(folder)
    return Step(folder, settings)


def pseudo_label(run: Run) -> None:
    """The scorer's answers to the tasks of unlabelled notes, and the sure ones as training rows of the arms."""
    arms = pseudo_of(run.settings)
    if arms and not run.is_done("pseudo"):
        answers, step = answer(run), _renewed(run, "pseudo")
        run.say(f"pseudo: sure answers -> {', '.join(arms)}")
        tasks = run.corpus.tasks
        kept = {arm: pseudo_labels.keep_shares(answers, settings, tasks) for arm, settings in arms.items()}
        pipeline.teach(run.settings, run.corpus, run.tokenizer, answers, kept, run.cluster, step.data)
        step.finish(arms={arm: pseudo_labels.tally(answers, shares) for arm, shares in kept.items()})


def answer(run: Run) -> Path:
    """The scorer's answers to all tasks of the unlabelled notes."""
    step = run.step("answer")
    if not step.done:
        run.needed(f"finetune/{SCORER}")
        run.say("answer: the scorer answers the tasks of unlabelled notes")
        pipeline.answer(run.settings, run.corpus, run.model(SCORER), run.cluster, step.data)
        step.finish()
    return step.data


def render(run: Run) -> None:
    """Masked examples of all arms as tokens of the student."""
    if masking_of(run.settings) and not run.is_done("train/rows"):
        run.say("train/rows: masked examples as tokens")
        masked, step = run.needed("mask").data, _renewed(run, "train/rows")
        pipeline.render(run.settings, run.corpus, run.tokenizer, run.sentinels, masked, run.cluster, step.data)
        arms = counts(step.data, tally(masked))
        step.finish(rows=sum(found["rows"] for found in arms.values()), arms=arms)


def _renewed(run: Run, name: str) -> Step:
    """The folder of a step that all arms share, to write in. What was made before an arm was added is made again: the
    rows of the other arms will be what they were, so that what was learned from them stays true.
    """
    if run.lacks_arms(name):
        clear(run.folder / name)
    return run.step(name)


def _keep_relevance(run: Run) -> None:
    """Attribution is the dear part of masks that are to be made again."""
    step, folder = run.step("attribute"), run.folder / "mask"
    if not step.done:
        masked = Step(folder, read_settings(folder))  # as it was made, without the new arms
        pipeline.keep_relevance(masked.data, run.cluster, step.data)
        _finish_notes(run, step, seconds=masked.manifest["seconds"])  # spent on both


def evaluate(run: Run, arm: str) -> None:
    """Predictions of an arm's students on the evaluation split; on dev, too, if prediction sets are wanted."""
    run = run.of(arm)
    splits: dict[str, config.Split] = {"evaluate": run.settings.evaluation.split}
    if run.settings.evaluation.conformal is not None:
        splits["calibrate"] = CALIBRATION
    for student, (name, split) in product(run.students(arm), splits.items()):
        step = run.step(f"{name}/{student}")
        if not step.done:
            if run.settings.arms[arm].finetune:
                run.needed(f"finetune/{student}")
            run.say(f"{name}/{student}: scoring the {split} notes")
            pipeline.score(run.settings, run.corpus, run.model(student), split, run.cluster, step.data)
            predicted = pq.read_table(step.data, columns=["predicted"])["predicted"]
            step.finish(predictions=len(predicted), without_room=predicted.null_count)  # these count as wrong


def prepare(run: Run) -> None:
    """All that the arms share: backbone, scorer, masks and pseudo-labels, as training rows."""
    _fit(run, [*([_pretrain_stage(run)] if run.pretrains else []), _finetune_stage(run, SCORER)])
    mask(run)
    render(run)
    pseudo_label(run)
    if run.settings.evaluation.embeddings:
        probing.probe_backbone(run)
    for variant in run.all_variants():
        prepare(variant)


def learn(run: Run, arm: str, at_once: int = 1) -> None:
    """Reconstruction and fine-tunings of an arm, on the same workers."""
    run = run.of(arm)
    if not run.settings.arms[arm].finetune:
        return
    reconstruction = [_train_stage(run, arm)] if run.reconstructs(arm) else []
    students = [student for student in run.students(arm) if student != SCORER]
    _fit(run, [*reconstruction, *(_finetune_stage(run, student) for student in students)], at_once)


def run_all(run: Run) -> None:
    """The whole job but the report (results.py). The same call again goes on where the last one stopped."""
    prepare(run)
    at_once = min(run.settings.resources.concurrent_arms, len(run.settings.arms)) if run.settings.resources.ray else 1
    with ThreadPoolExecutor(at_once) as pool:
        for arm in [pool.submit(learn, run, name, at_once) for name in run.settings.arms]:
            arm.result()
    for name in run.settings.arms:  # one after the other: each takes all devices
        evaluate(run, name)


def _need_backbone(run: Run) -> None:
    if run.pretrains:
        run.needed("pretrain")


@dataclass(frozen=True)
class Prepared:
    """A training step whose rows are written, ready to run."""

    step: Step
    stage: trainer.Stage


def _fit(run: Run, prepared: Sequence[Prepared], at_once: int = 1) -> None:
    """Run the training steps that are not done yet, one after the other on one set of workers."""
    todo = [p for p in prepared if not p.step.done]
    if not todo:
        return
    names, stages = ", ".join(p.stage.name for p in todo), [p.stage for p in todo]
    if isinstance(run.cluster, Inline):
        run.say(f"{names}: training in this process")
        outcomes = trainer.fit_here(stages, run.cluster.threads, run.cluster.has_gpu, run.watch)
    else:
        resources = run.settings.resources
        workers = resources.training_workers
        each = run.cluster.worker(at_once, resources.cpus_per_worker, workers)
        run.say(f"{names}: training on {workers} x {each}")
        outcomes = trainer.fit(stages, resources, each, run.say)
    for p, outcome in zip(todo, outcomes, strict=True):
        p.step.finish(**vars(outcome))


def _pretrain_stage(run: Run) -> Prepared:
    architecture, step = run.settings.pretrain, run.step("pretrain")
    if architecture is None:
        raise InputError("model.path is pretrain, but the config has no `pretrain` section")
    cut = Step(step.folder / "rows", step.settings)
    if not cut.done:
        run.say("pretrain: a tokenizer, and notes cut into rows")
        loading.train_tokenizer(run.corpus.texts(pretrains=True), architecture, step.folder / "tokenizer")
        asked = run.settings.model_copy(update={"model": run.tokenizer})
        if problems := list(of_tokens(asked, run.corpus.tasks)):  # before hours of training
            raise InputError(problems)
        pipeline.cut(run.settings, run.corpus, run.tokenizer, run.cluster, cut.data)
        cut.finish()
    stage = trainer.Stage(
        str(step.folder), str(cut.data), TEXT, architecture.training, architecture, run.tokenizer, random_weights=True
    )
    return Prepared(step, stage)


def _finetune_stage(run: Run, student: str) -> Prepared:
    rows_step = _supervised(run)
    arm, _, repeat = student.partition("@")
    step, settings = run.step(f"finetune/{student}"), run.settings.finetune
    stage = trainer.Stage(
        folder=str(step.folder),
        rows=str(rows_step.folder / "train"),
        arm=LABELS,
        training=settings.model_copy(update={"seed": settings.seed + int(repeat or 0)}),
        start=run.model(arm, "train") if run.reconstructs(arm) else run.backbone,
        tokenizer=run.tokenizer,
        random_weights=not run.reconstructs(arm) and run.settings.arms.get(arm, config.Arm()).start == "random",
        dev_rows=str(rows_step.folder / "dev") if run.corpus.has_dev else None,
    )
    return Prepared(step, stage)


def _train_stage(run: Run, arm: str) -> Prepared:
    step = run.step(f"train/{arm}")
    share = run.settings.arms[arm].label_share
    stage = trainer.Stage(
        folder=str(step.folder),
        rows=str(run.step(_rows_of(run, arm)).data),
        arm=arm,
        training=run.settings.train,
        start=run.backbone,
        tokenizer=run.tokenizer,
        random_weights=run.settings.arms[arm].start == "random",
        mixed=trainer.Mixed(str(_supervised(run).folder / "train"), LABELS, share) if share else None,
    )
    return Prepared(step, stage)


def _rows_of(run: Run, arm: str) -> str:
    """The step whose rows the student learns from before the labels."""
    return "train/rows" if run.settings.arms[arm].masking is not None else "pseudo"


def _supervised(run: Run) -> Step:
    """The labelled notes as fine-tuning rows, in the folders train and dev."""
    step = run.step("finetune/rows")
    if not step.done:
        skipped = {split: _write_supervised(run, split, step.folder / split) for split in ("train", "dev")}
        step.finish(notes_without_room=skipped)
    return step


def _write_supervised(run: Run, split: str, folder: Path) -> int:
    """Fine-tuning rows of the labelled notes; few by nature, so this process writes them. How many had no room?"""
    encoder, options = run.encoder(), {task.id: task.options for task in run.corpus.tasks}
    out, n_skipped = [], 0
    for note, labels in run.corpus.labelled(split):
        try:
            encoded = encoder.encode(note["note_id"], note["text"], sorted(labels))
        except RowError:  # the questions alone fill the context: nothing to learn from
            n_skipped += 1
            continue
        answer = {task_id: options[task_id].index(label) for task_id, label in labels.items()}
        for part, row in enumerate(supervised.training_rows(encoded, answer, encoder.eos_id)):
            out.append({"arm": LABELS, "key": f"{note['note_id']}\t{part}", "draw": 0, **row})
    if out:
        examples.write(out, folder / "rows.parquet")
    return n_skipped


def _finish_notes(run: Run, step: Step, **facts: Any) -> None:
    """Audit that every note came out once; write the dead letters and count them; too many end the run."""
    ids = pq.read_table(step.data, columns=["note_id", "error"])
    n_in, n_distinct = run.corpus.facts["notes"], pc.count_distinct(ids["note_id"]).as_py()
    if not n_in == n_distinct == len(ids):
        what = f"{n_in} notes came in, {len(ids)} rows with {n_distinct} ids came out; delete the folder and run again"
        raise InputError([Problem(str(step.folder), what)], ExitCode.PARTIAL)
    failed = ids.filter(pc.starts_with(pc.fill_null(ids["error"], ""), "E_"))
    by_code = {row["values"]: row["counts"] for row in pc.value_counts(ids["error"].drop_null()).to_pylist()}
    letters = failed.append_column("step", pa.array([step.folder.name] * len(failed), pa.string()))
    pq.write_table(letters.select(rows.DEAD_LETTERS.names), step.folder / "dead_letters.parquet")
    n_tried = len(failed) + ids["error"].null_count  # not those held out or beyond `max_unlabelled`
    if len(failed) > run.settings.data.max_error_rate * max(1, n_tried):
        what = f"{len(failed)} of {n_tried} notes failed ({by_code}), more than data.max_error_rate allows"
        raise InputError(what, ExitCode.DATA)
    step.finish(notes=len(ids), errors=by_code, **facts)
