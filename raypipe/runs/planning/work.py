"""Each step that is still to be made: its arithmetic, its rows and its bytes. What the steps are, steps.py says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from raypipe import rows
from raypipe.attribution import cost
from raypipe.masking.corpus_needs import corpus_needs
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import IMPORTANCE, RELEVANCE
from raypipe.models.prompts import EncodedNote
from raypipe.models.shape import on_meta
from raypipe.runs.driver import Todo
from raypipe.runs.making import CALIBRATION
from raypipe.runs.planning.figures import Step
from raypipe.runs.planning.material import Made, Material, stored_bytes
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.settings.arms import masking_of, pseudo_of
from raypipe.training import examples, lora, schedule
from raypipe.training.examples import Examples
from raypipe.training.throughput import Work, training_flops

ROWS = 200_000  # rows whose order is worked out; more of them are as many times this
HEADER_BYTES = 100  # of a tensor, in a file of weights


def works(material: Material, steps: Iterable[Todo]) -> list[Step]:
    """What each of these steps takes."""
    return [WORK[t.kind.name](material, t) for t in steps]


def shown(run: Run, t: Todo) -> str:
    """A step's name below the run's folder: steps of a variant stand in its own."""
    return str(t.path.relative_to(run.folder)) if t.path.is_relative_to(run.folder) else t.name


def trained_model(material: Material, training: config.Training) -> Any:
    """The model as a training changes it, on the meta device: what is trained asks for gradients."""
    model = material.model.on_meta()
    adapters = training.lora
    if adapters is None:
        return model
    return on_meta(lambda: lora.add(model, adapters)).get_base_model()


def learning(sampled: Examples, n_rows: int, training: config.Training) -> tuple[int, int, Work]:
    """Optimiser steps, rows and work of a training on `n_rows` rows, of which some were sampled."""
    if not len(sampled) or not n_rows:
        return 0, 0, Work()
    n = min(n_rows, ROWS)
    open_end = training if n == n_rows else training.model_copy(update={"max_steps": None})
    order = schedule.steps(np.resize(sampled.length, n), np.resize(sampled.draw, n), open_end)
    n_steps = min(round(len(order) * n_rows / n), training.max_steps or 2**62)
    times = np.bincount(np.concatenate(order[:n_steps]) % len(sampled), minlength=len(sampled))
    targets = np.array([sampled.targets_of(np.array([row])) for row in range(len(sampled))])
    scale = n_steps / min(n_steps, len(order))
    length = sampled.length
    summed = (times @ length, times @ targets, times @ length**2)
    return n_steps, round(times.sum() * scale), Work(*(round(float(number) * scale) for number in summed))


def _training(material: Material, t: Todo, sampled: Examples, n_rows: int, training: config.Training) -> Step:
    n_steps, n_learned, work = learning(sampled, n_rows, training)
    model = trained_model(material, training)
    flops = training_flops(model, work)
    parameters = [p for p in model.parameters() if p.requires_grad]
    trained = sum(p.numel() for p in parameters)
    adapters = 4 * trained + HEADER_BYTES * len(parameters) if training.lora is not None else 0
    checkpoints = 12 * trained if training.checkpoint_every and n_steps >= training.checkpoint_every else 0
    resources = t.run.settings.resources
    at_once = min(resources.concurrent_arms, len(material.run.settings.arms)) if t.student else 1
    return Step(
        name=shown(material.run, t),
        kind="training",
        rows=n_learned,
        tokens=work.tokens,
        flops=flops,
        optimiser_steps=n_steps,
        bytes=model_bytes(material, material.model.stored.itemsize) + adapters,
        scratch_bytes=checkpoints + sampled.table.nbytes * n_rows / max(1, len(sampled)),
        workers=resources.training_workers * at_once if resources.ray else 1,
        remark="at most: if the scorer is sure of all answers" if _is_taught(t) else "",
    )


def model_bytes(material: Material, element: int) -> int:
    """A model's folder: weights with their headers, and the tokenizer."""
    shape = material.shape
    return shape.parameters * element + shape.tensors * HEADER_BYTES + material.model.tokenizer_bytes


def _is_taught(t: Todo) -> bool:
    return t.kind.name == "train/{arm}" and t.student in pseudo_of(t.run.settings)


def training_of(material: Material, t: Todo) -> tuple[Examples, int, config.Training]:
    """What a training step learns from: sampled rows, how many there are in all, and its settings."""
    settings = t.run.settings
    if t.kind.name == "pretrain":
        assert settings.pretrain is not None  # noqa: S101 (the step is not used without it)
        made, training = material.pretraining_rows(settings.pretrain), settings.pretrain.training
    elif t.kind.name == "train/{arm}":
        made = material.pseudo_rows(t.student) if _is_taught(t) else material.masked_rows(t.run).of(t.student)
        training = settings.training_of(t.student)
        if share := settings.arms[t.student].label_share:
            own = examples.from_table(made.table)
            mixed = examples.mixed(own, examples.from_table(material.labelled_rows().table), share)
            return mixed, round(made.n_rows * len(mixed) / max(1, len(own))), training
    else:
        made = material.labelled_rows()
        training = settings.finetune if t.student else settings.scorer_training
    return examples.from_table(made.table), made.n_rows, training


def _trains(material: Material, t: Todo) -> Step:
    return _training(material, t, *training_of(material, t))


def attribution_flops(material: Material, settings: config.Config, notes: list[EncodedNote]) -> list[float] | None:
    """FLOPs of attributing each note; None if they are not counted for this method."""
    shape, layers = material.shape, material.layers(settings.attribution)
    every = [cost.flops(shape, settings.attribution, layers, cost.NoteSize.of(note)) for note in notes]
    return None if None in every else [flops for flops in every if flops is not None]


def _attributes(material: Material, t: Todo) -> Step:
    notes, drawn = material.to_attribute(t.run.settings), material.sample.to_learn_from
    per_note = attribution_flops(material, t.run.settings, notes)
    attributed = material.masked(t.run).table.select(rows.ATTRIBUTED.names)
    return Step(
        name=shown(material.run, t),
        kind="attribution",
        rows=drawn.n_all,
        tokens=sum(len(note.prefix_ids) for note in notes) * drawn.scale,
        flops=None if per_note is None else sum(per_note) * drawn.scale,
        bytes=material.streamed_bytes(attributed, **rows.PARQUET),
        shards=_blocks(material, material.sample.n_notes),
        workers=_actors(t),
        remark="" if per_note is not None else f"passes of {t.run.settings.attribution.method} are not counted",
    )


def _masks(material: Material, t: Todo) -> Step:
    """Attribution and masking in one stream, unless relevance is stored by then."""
    made, drawn = material.masked(t.run), material.sample.to_learn_from
    name, n_bytes = shown(material.run, t), material.streamed_bytes(made.table, **rows.PARQUET)
    shards, cpu = _blocks(material, material.sample.n_notes), made.seconds * made.scale
    is_stored = t.run.is_done("attribute") or t.run.folder / "attribute" in t.inputs
    if is_stored or RELEVANCE not in needs(masking_of(t.run.settings)):
        return Step(name, "rows", rows=drawn.n_all, bytes=n_bytes, shards=shards, cpu_seconds=cpu)
    work = _attributes(material, t)
    return replace(work, name=name, bytes=n_bytes, cpu_seconds=cpu)


def _writes(make: Callable[[Material, Todo], Iterator[Made]]) -> Callable[[Material, Todo], Step]:
    """A step that no model runs in."""

    def work(material: Material, t: Todo) -> Step:
        parts = list(make(material, t))
        return Step(
            shown(material.run, t),
            "rows",
            rows=sum(part.n_rows for part in parts),
            bytes=sum(part.bytes() for part in parts if len(part.table)),
            cpu_seconds=sum(part.seconds * part.scale for part in parts),
        )

    return work


def _pretraining(material: Material, t: Todo) -> Iterator[Made]:
    assert t.run.settings.pretrain is not None  # noqa: S101 (the step is not used without it)
    yield material.pretraining_rows(t.run.settings.pretrain)


def _supervised(material: Material, t: Todo) -> Iterator[Made]:
    yield from (material.labelled_rows(split) for split in ("train", "dev"))


def _rendered(material: Material, t: Todo) -> Iterator[Made]:
    yield material.masked_rows(t.run)


def _taught(material: Material, t: Todo) -> Iterator[Made]:
    yield from (material.pseudo_rows(arm) for arm in pseudo_of(t.run.settings))


def _collects(material: Material, t: Todo) -> Step:
    labels = material.sample.corpus.labels
    n_bytes = float(stored_bytes(labels)) if len(labels) else 0.0
    n_notes = 0
    for drawn in material.sample.labelled.values():
        n_bytes += stored_bytes(rows.table(drawn.notes, rows.NOTES)) * drawn.scale if drawn.notes else 0
        n_notes += drawn.n_all
    return Step(shown(material.run, t), "rows", rows=n_notes, bytes=n_bytes)


def _counts(material: Material, t: Todo) -> Step:
    """Words of the corpus: no model, unless deleting words of labelled notes is what counts."""
    name = shown(material.run, t)
    if IMPORTANCE not in corpus_needs(masking_of(t.run.settings)).needs:
        return Step(name, "rows", rows=material.sample.to_learn_from.n_all)
    occlusion = config.Attribution(method="occlusion", tasks_per_note=t.run.settings.attribution.tasks_per_note)
    deletes = t.run.settings.model_copy(update={"attribution": occlusion})
    drawn = material.sample.labelled["train"]
    ids = [task.id for task in material.tasks][: occlusion.tasks_per_note]
    notes = [encoded for note in drawn.notes if (encoded := material.encoded(note, ids)) is not None]
    flops = sum(attribution_flops(material, deletes, notes) or []) * drawn.scale
    return Step(
        name, "attribution", rows=drawn.n_all, flops=flops, shards=_blocks(material, drawn.n_all), workers=_actors(t)
    )


def scoring(material: Material, notes: Iterable[EncodedNote]) -> tuple[float, int]:
    """FLOPs and tokens of scoring these notes' questions."""
    from raypipe.evaluation.scoring import sizes_of

    shape, flops, tokens = material.shape, 0.0, 0
    for note in notes:
        for length, n_reads in sizes_of(note):
            flops += shape.forward(length, length**2) + shape.head(n_reads)
            tokens += length
    return flops, tokens


def _scores(*splits: str) -> Callable[[Material, Todo], Step]:
    """A step that reads labelled notes; without splits, those of the evaluation, and with a head those of training."""

    def work(material: Material, t: Todo) -> Step:
        evaluation = t.run.settings.evaluation
        read = list(splits or (evaluation.split,))
        if evaluation.mode == "head" or not t.kind.name.startswith(("evaluate", "calibrate")):
            read = sorted({"train", *read})
        flops, tokens, n_notes, n_bytes = 0.0, 0.0, 0, 0.0
        for split in read:
            drawn, notes = material.sample.labelled[split], list(material.labelled(split))
            some, n_tokens = scoring(material, [note for note, _ in notes])
            flops, tokens, n_notes = flops + some * drawn.scale, tokens + n_tokens * drawn.scale, n_notes + drawn.n_all
            if split in (splits or (evaluation.split,)):
                n_bytes += _prediction_bytes(material, notes) * drawn.scale
        name, shards = shown(material.run, t), _blocks(material, n_notes)
        return Step(
            name, "scoring", rows=n_notes, tokens=tokens, flops=flops, bytes=n_bytes, shards=shards, workers=_actors(t)
        )

    return work


def _prediction_bytes(material: Material, notes: list[tuple[EncodedNote, dict[str, str]]]) -> int:
    options = {task.id: task.options for task in material.tasks}
    rng = np.random.default_rng(0)
    out = [
        rows.prediction(task_id, note.note_id, None, label, label, rng.random(len(options[task_id])))
        for note, labels in notes
        for task_id, label in labels.items()
    ]
    return stored_bytes(rows.table(out, rows.PREDICTIONS))


def _answers(material: Material, t: Todo) -> Step:
    drawn, notes = material.to_mask, material.with_all_tasks()
    flops, tokens = scoring(material, notes)
    rng = np.random.default_rng(0)
    texts = {note["note_id"]: note["text"] for note in drawn.notes}
    ids = [task.id for task in material.tasks]
    out = []
    for note in notes:
        row = {"note_id": note.note_id, "text": texts[note.note_id], "task_id": ids}
        predicted = [str(rng.choice(task.options)) for task in material.tasks]
        out.append(row | {"predicted": predicted, "confidence": rng.random(len(ids))})
    return Step(
        name=shown(material.run, t),
        kind="scoring",
        rows=drawn.n_all,
        tokens=tokens * drawn.scale,
        flops=flops * drawn.scale,
        bytes=material.streamed_bytes(rows.table(out, rows.ANSWERED)),
        shards=_blocks(material, material.sample.n_notes),
        workers=_actors(t),
    )


def _states(material: Material, t: Todo) -> Step:
    work = _scores()(material, t)
    layers = range(material.depth + 1) if t.run.settings.probe.layers == "all" else t.run.settings.probe.layers
    per_layer = 4 * material.shape.hidden * len(layers)
    n_vectors = sum(
        (1 + len(labels)) * material.sample.labelled[split].scale
        for split in sorted({"train", t.run.settings.evaluation.split})
        for _, labels in material.labelled(split)
    )
    return replace(work, bytes=per_layer * n_vectors)


def _probes(material: Material, t: Todo) -> Step:
    """Classifiers on stored states: CPU work that is not planned."""
    return Step(shown(material.run, t), "rows")


def _blocks(material: Material, n_rows: float) -> int:
    return max(1, -(-round(n_rows) // material.run.settings.resources.rows_per_block))


def _actors(t: Todo) -> int:
    """Most GPUs of a stream; 0: all."""
    resources = t.run.settings.resources
    if not resources.ray:
        return 1
    return 0 if resources.attribution_actors == "auto" else resources.attribution_actors


# What each step of the job takes, by its name in the table of steps.
WORK: dict[str, Callable[[Material, Todo], Step]] = {
    "corpus": _collects,
    "pretrain/rows": _writes(_pretraining),
    "pretrain": _trains,
    "finetune/rows": _writes(_supervised),
    "finetune/scorer": _trains,
    "attribute": _attributes,
    "statistics": _counts,
    "mask": _masks,
    "train/rows": _writes(_rendered),
    "answer": _answers,
    "pseudo": _writes(_taught),
    "train/{arm}": _trains,
    "finetune/{student}": _trains,
    "evaluate/scorer": _scores(),
    "evaluate/{student}": _scores(),
    "calibrate/{student}": _scores(CALIBRATION),
    "states/backbone": _states,
    "probe/backbone": _probes,
}
