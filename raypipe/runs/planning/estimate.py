"""A plan of a job: sample, material, work, rates and memory put together. Reads; makes no step of the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from raypipe.attribution import cost
from raypipe.runs import compare, driver
from raypipe.runs.driver import Todo
from raypipe.runs.planning import advice, figures, memory, rates, sample, tokens, work
from raypipe.runs.planning.material import Material
from raypipe.runs.planning.options import Options
from raypipe.runs.run import Run
from raypipe.settings import config

CORES_PER_GPU = 8  # of a node, for the steps without a model
IN_FLIGHT = 4  # blocks for each worker: two that wait, one that is made, one that is masked or written


@dataclass(frozen=True)
class Timed:
    """A step with its time on one GPU (or on one core, if no model runs in it)."""

    todo: Todo
    step: figures.Step
    seconds: float | None
    source: str


def plan(run: Run, options: Options) -> figures.Plan:
    """What the job of a run takes. Raises `InputError` with what is wrong with its input, as `raypipe check` does."""
    with tempfile.TemporaryDirectory() as scratch:  # of generated notes and a new tokenizer, which the run has not yet
        return _plan(_of_config(run, options), options, Path(scratch))


def _of_config(run: Run, options: Options) -> Run:
    """The run with the model that is planned for: none of its steps is finished with that one."""
    if options.model_config is None:
        return run
    model = run.settings.model.model_copy(update={"path": str(options.model_config), "revision": None})
    return Run(run.settings.model_copy(update={"model": model, "pretrain": None}), say=run.say)


def _plan(run: Run, options: Options, scratch: Path) -> figures.Plan:
    has_model = options.model_config is None
    corpus = sample.corpus_of(run, scratch, with_model=has_model)
    run.corpus = corpus
    drawn = sample.draw(corpus, pretrains=run.pretrains)
    if options.notes is not None:
        learn = drawn.to_learn_from.as_if(options.notes)
        drawn = replace(drawn, to_learn_from=learn, n_notes=options.notes)
    model = tokens.model_of(run, options.model_config, drawn, scratch)
    material = Material(run, drawn, model)
    pace = rates.here(material, options.share) if options.peak is None else rates.stated(options.peak, options.share)
    todo = driver.missing_in_job(run)
    timed = _timed(material, todo, pace)
    is_gpu = options.peak is not None or torch.cuda.is_available()
    host_bytes = _host_bytes(material, todo)
    steps, stages = [t.step for t in timed], [figures.Stage(t.step.name, t.seconds, t.source) for t in timed]
    on_gpus = [_on_gpus(run.settings, timed, n, is_gpu) for n in options.gpus]
    of_corpus, held = _corpus(material, steps, options), _memory(material, todo, is_gpu)
    return figures.Plan(
        name=run.settings.name,
        model=model.name,
        parameters=material.shape.parameters,
        corpus=of_corpus,
        steps=steps,
        stages=stages,
        seconds_per_note=_seconds_per_note(timed),
        on_gpus=on_gpus,
        memory=held,
        memory_limit=options.memory,
        host_bytes=host_bytes,
        in_flight_bytes=_in_flight(material, run),
        shards=max((step.shards for step in steps), default=0),
        rows_per_block=run.settings.resources.rows_per_block,
        several=[*_comparison(run, material, timed, pace, scratch), *_searches(timed, options)],
        advice=list(advice.advice(run.settings, of_corpus, steps, stages, on_gpus, held, options.memory, host_bytes)),
        assumptions=_assumptions(model, is_gpu),
    )


def _timed(material: Material, todo: Sequence[Todo], pace: rates.Rates) -> list[Timed]:
    out = []
    for t, step in zip(todo, work.works(material, todo), strict=True):
        if step.kind == "rows":
            out.append(Timed(t, step, step.cpu_seconds, "one core, measured on the sample"))
        else:
            rate = pace.of(t, step.kind)
            out.append(Timed(t, step, rates.seconds_of(rate, step.flops, step.rows), rate.source))
    return out


def _on_gpus(settings: config.Config, timed: Sequence[Timed], gpus: int, is_gpu: bool) -> figures.OnGpus:
    """Wall time: each step on as many GPUs as can take part. Arms that train at once share them."""
    cores = gpus * (CORES_PER_GPU if is_gpu else os.cpu_count() or 1) if settings.resources.ray else 1
    wall = on_model = 0.0
    for t in timed:
        if t.seconds is None:
            continue
        if t.step.kind == "rows":
            wall += t.seconds / cores
        else:
            on_model += t.seconds
            wall += t.seconds / min(gpus, t.step.workers or gpus, t.step.shards or gpus)
    shards = max((t.step.shards for t in timed), default=0)
    busy = on_model / (wall * gpus) if wall else 0.0
    return figures.OnGpus(gpus, wall / 3600, wall * gpus / 3600, busy, shards / gpus)


def _corpus(material: Material, steps: Sequence[figures.Step], options: Options) -> figures.Corpus:
    drawn, settings = material.sample, material.run.settings
    encoded = material.to_attribute(settings)
    n_tokens = [len(note.offsets_N2) + note.n_cut_tokens for note in encoded]
    learn = drawn.to_learn_from
    is_attributed = any(step.kind == "attribution" for step in steps)
    saved = _saved(material) if is_attributed else None
    n_questions = sum(len(note.questions) for note in encoded) / max(1, len(encoded))
    return figures.Corpus(
        notes=drawn.n_notes,
        unreadable=learn.n_unreadable,
        to_learn_from=learn.n_all,
        is_count_stated=options.notes is not None,
        labelled={split: of.n_all for split, of in drawn.labelled.items()},
        sampled=len(learn.notes),
        tokens=figures.Interval.of_total(n_tokens, learn.n_all),
        truncated=sum(note.n_cut_tokens > 0 for note in encoded) / max(1, len(encoded)),
        tokenizer=material.model.tokenizer_source,
        tasks=len(material.tasks),
        questions_per_note=n_questions if is_attributed else 0.0,
        forward_passes_saved=(n_questions - 1) * learn.n_all if saved else 0.0,
        flops_saved=saved,
    )


def _saved(material: Material) -> float | None:
    """The share of attribution's arithmetic that is saved because the tasks of a note share it."""
    settings = material.run.settings
    shape, layers = material.shape, material.layers(settings.attribution)
    together = apart = 0.0
    for note in material.to_attribute(settings):
        size = cost.NoteSize.of(note)
        flops = cost.flops(shape, settings.attribution, layers, size)
        if flops is None:
            return None
        together += flops
        apart += sum(cost.flops(shape, settings.attribution, layers, part) or 0.0 for part in size.apart())
    return max(0.0, 1 - together / apart) if apart else 0.0


def _seconds_per_note(timed: Sequence[Timed]) -> float | None:
    of_notes = [t for t in timed if t.step.kind == "attribution" and t.seconds is not None and t.step.rows]
    return of_notes[0].seconds / of_notes[0].step.rows if of_notes and of_notes[0].seconds is not None else None


def _memory(material: Material, todo: Sequence[Todo], is_gpu: bool) -> list[figures.Memory]:
    """Attribution, and each kind of training once."""
    held: dict[str, figures.Memory] = {}
    for t in todo:
        if t.kind.name in ("attribute", "mask"):
            attribution = t.run.settings.attribution
            held.setdefault(attribution.method, memory.of_scorer(material, attribution, is_gpu))
        elif t.kind.train is not None:
            training = work.training_of(material, t)[2]
            name = f"{t.name.split('/')[0]} ({'adapters' if training.lora else 'all weights'})"
            held.setdefault(name, memory.of_training(material, name, training, is_gpu))
    return list(held.values())


def _host_bytes(material: Material, todo: Sequence[Todo]) -> float:
    """Of the largest training."""
    trainings = [work.training_of(material, t)[1:] for t in todo if t.kind.train is not None]
    return max((memory.host_bytes(n_rows, training) for n_rows, training in trainings), default=0.0)


def _in_flight(material: Material, run: Run) -> float:
    """Bytes of blocks in the object store, for each GPU."""
    if not any(arm.masking for arm in run.settings.arms.values()):
        return 0.0
    table = material.masked(run).table
    return IN_FLIGHT * run.settings.resources.rows_per_block * table.nbytes / max(1, len(table))


def _comparison(
    run: Run, material: Material, timed: Sequence[Timed], pace: rates.Rates, scratch: Path
) -> list[figures.Several]:
    """`raypipe compare`: every cell makes all but the backbone anew."""
    cells = compare.cells(run)
    fresh = Run(run.settings.model_copy(update={"runs": str(scratch / "compared")}), say=run.say)
    fresh.corpus = run.corpus
    todo = driver.missing_in_job(fresh)
    every = timed if len(todo) == len(timed) else _timed(material, todo, pace)
    seconds = [(t.todo.name, t.seconds or 0.0) for t in every if t.step.kind != "rows"]
    labels_only = {arm for arm in run.settings.arms if run.is_labels_only(arm)}
    students = {name for arm in labels_only for name in run.students(arm)}
    total = sum(s for name, s in seconds if name == "pretrain")
    for cell in cells:
        if cell.finetuning is not None:
            total += _finetuned(material, every, seconds, run.settings.comparison.finetunings[cell.finetuning])
        elif cell.labels_only:
            total += sum(s for name, s in seconds if name.rpartition("/")[2] in students)
        else:
            total += sum(s for name, s in seconds if name != "pretrain")
    comparison = run.settings.comparison
    what = f"raypipe compare: {comparison.seeds} seeds x {1 + len(comparison.budgets)} label budgets x "
    what += f"{1 + len(comparison.finetunings)} fine-tunings, and the gates' cells"
    return [figures.Several(what, len(cells), total / 3600)]


def _finetuned(
    material: Material, every: Sequence[Timed], seconds: Sequence[tuple[str, float]], other: config.Finetuning
) -> float:
    """Seconds of a cell of another fine-tuning: each candidate once, and all students with the longest of them."""
    rows = material.labelled_rows()
    own = [t for t in every if t.todo.kind.name.startswith("finetune/") and t.todo.kind.train is not None]
    if not own or not rows.n_rows:
        return 0.0
    sampled = work.training_of(material, own[0].todo)[0]
    n_steps = [work.learning(sampled, rows.n_rows, training)[0] for training in other.candidates]
    per_step = max((t.seconds or 0.0) / max(1, t.step.optimiser_steps) for t in own)
    evaluations = sum(s for name, s in seconds if name.startswith(("evaluate/", "calibrate/")))
    tried = sum(n_steps) * per_step if len(n_steps) > 1 else 0.0
    return tried + len(own) * max(n_steps) * per_step + evaluations


def _searches(timed: Sequence[Timed], options: Options) -> list[figures.Several]:
    """`raypipe tune`: each trial learns and evaluates the arm that is searched."""
    out = []
    for model, arm, n_trials in options.trials:
        own = [t.seconds or 0.0 for t in timed if t.step.kind != "rows" and t.todo.student.partition("@")[0] == arm]
        what = f"raypipe tune: trials of {arm} on {model}, each as this config has the arm"
        out.append(figures.Several(what, n_trials, n_trials * sum(own) / 3600))
    return out


def _assumptions(model: tokens.Model, is_gpu: bool) -> list[str]:
    """What the figures suppose beside what they say of themselves."""
    out = ["rows, tokens and bytes come from a sample of the notes, masked by random relevance"]
    out.append("near copies of test notes, which the job leaves out, are still counted")
    if is_gpu:
        out.append(f"steps without a model run on {CORES_PER_GPU} cores for each GPU")
    else:
        out.append("no GPU is here: what stands under GPU is said of this machine's processor")
    if model.weights is None:
        out.append("the model is not here: its size comes from its config")
    out.append("starting Ray, loading models, evaluation on dev and waiting for the last block are not in the times")
    return out
