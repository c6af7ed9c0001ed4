"""One line on what a finished step left: how much came out and where, what was dropped or cut, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import rows
from raypipe.evaluation import metrics
from raypipe.runs.folder import StepFolder
from raypipe.runs.run import Run

Facts = dict[str, Any]
REASONS = {"HELD_OUT": "held out", "NOT_SAMPLED": "beyond the limit"}  # of errors.Code; others are said as they are


def line(run: Run, name: str) -> str:
    """Of a finished step; the facts are those of its manifest."""
    step = run.step(name)
    kind = name.partition("/")[0]
    say = SAYERS.get(name) or SAYERS.get(kind)
    parts = [part for part in (say(run, step, step.manifest) if say else ()) if part]
    return f"{name}: {'; '.join([*parts, shown(step.path)])}"


def shown(path: Path) -> str:
    """As it can be typed from here, where that is shorter."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _corpus(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    yield f"{facts['notes']:,} notes, {facts['labels']:,} labels, {facts['tasks']:,} tasks"
    if facts.get("labels_of_unreadable_notes"):
        yield f"{facts['labels_of_unreadable_notes']:,} labels left out: their notes cannot be read"


def _notes(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    errors = facts["errors"]
    yield f"{facts['notes'] - sum(errors.values()):,} of {facts['notes']:,} notes"
    yield ", ".join(f"{n:,} {REASONS.get(code, f'not processed ({code})')}" for code, n in errors.items())
    tokens = rows.read(step.data, ["n_tokens", "n_cut_tokens"])
    n_read, n_cut = (int(np.nansum(c.to_numpy(zero_copy_only=False).astype(float))) for c in tokens.columns)
    if n_cut:
        yield f"{_share(n_cut, n_read + n_cut)} tokens cut: their notes are longer than prompt.max_tokens allows"


def _rows(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    if "rows" in facts:
        yield f"{facts['rows']:,} training rows"
    for arm, of_arm in facts.get("arms", {}).items():
        if of_arm.get("plans_without_rows"):
            yield f"{arm}: {of_arm['plans_without_rows']:,} masked examples dropped, they do not fit the context"
        if n_cut := of_arm.get("cut_tokens"):
            n = _share(n_cut, n_cut + of_arm["tokens"]) if "tokens" in of_arm else f"{n_cut:,}"
            yield f"{arm}: {n} tokens cut to fit the context"


def _training(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    yield f"{facts['steps']:,} steps on {facts['tokens']:,} tokens, loss {facts['loss']:.3f}"
    if facts.get("dev_loss") is not None:
        yield f"dev loss {facts['dev_loss']:.3f}"


def _labelled_rows(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    for split, n in facts["notes_without_room"].items():
        if n:
            yield f"{n:,} {split} notes dropped: the questions alone fill prompt.max_tokens"


def _answers(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    yield f"{facts['predictions']:,} answers"
    if facts["predictions"]:
        of_run = metrics.evaluate(rows.read(step.data), run.corpus.tasks)
        auc = "" if of_run.auc is None else f", AUC {100 * of_run.auc:.1f}"
        yield f"macro F1 {100 * of_run.macro_f1:.1f}{auc} (over all tasks)"
    if facts["without_room"]:
        n = _share(facts["without_room"], facts["predictions"])
        yield f"{n} count as wrong: the questions alone fill prompt.max_tokens"


def _statistics(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    yield f"{facts['words']:,} words, {facts['runs_of_words']:,} runs of words"


def _variants(run: Run, step: StepFolder, facts: Facts) -> Iterator[str]:
    yield f"{facts['variants']:,} variants on {facts['questions']:,} questions"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.0f} %)"


SAYERS: dict[str, Callable[[Run, StepFolder, Facts], Iterator[str]]] = {
    "corpus": _corpus,
    "attribute": _notes,
    "mask": _notes,
    "statistics": _statistics,
    "faithfulness": _variants,
    "train/rows": _rows,
    "finetune/rows": _labelled_rows,
    "pretrain/rows": _rows,
    "pretrain": _training,
    "train": _training,
    "finetune": _training,
    "evaluate": _answers,
    "calibrate": _answers,
}
