"""Which of the scorer's own answers become training rows (docs/method.md, section 9.2; the recipe is ours).

An answer is kept if the scorer is sure of it, and classes are evened out: a scorer that says "no" to everything would
otherwise teach little else. Shares, not lists, are handed to the workers: whether an answer is kept follows from its
note and task alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe import rows
from raypipe.hashing import stable_hash
from raypipe.notes.tasks import Task
from raypipe.settings.config import PseudoLabels

Class = tuple[str, str]  # task and answer
Limits = tuple[float, Mapping[Class, float]]  # the least confidence; by class, the share of its confident answers
ALL = 2**64


def keep_shares(answers: Path, settings: PseudoLabels, tasks: Sequence[Task]) -> Limits:
    """The least confidence, and by class the share of its confident answers to keep.

    `answers`: rows of rows.ANSWERED. A class is cut to `max_imbalance` times the rarest one of its task; of a task in
    which the scorer is never sure of some option, nothing is kept.
    """
    counts = _counts(answers, settings.confidence)
    rarest = {task.id: min(counts[task.id, option] for option in task.options) for task in tasks}
    limit = settings.max_imbalance
    shares = {c: 1.0 if limit is None else min(1.0, limit * rarest[c[0]] / n) for c, n in counts.items()}
    return settings.confidence, shares


def is_kept(note_id: str, task_id: str, answer: str, confidence: float, limits: Limits) -> bool:
    """Does this answer become a training target?"""
    least, shares = limits
    return confidence >= least and stable_hash(note_id, task_id) < shares.get((task_id, answer), 0.0) * ALL


def tally(answers: Path, limits: Limits) -> dict[str, Any]:
    """Answers, confident ones, and (expected) kept ones, over all tasks."""
    least, shares = limits
    every, sure = _counts(answers, 0.0), _counts(answers, least)
    n_kept = sum(n * shares.get(c, 0.0) for c, n in sure.items())
    return {"answers": sum(every.values()), "confident": sum(sure.values()), "kept": round(n_kept)}


def _counts(answers: Path, confidence: float) -> Counter[Class]:
    """Answers of at least this confidence by task and answer; streams."""
    counts: Counter[Class] = Counter()
    for batch in rows.dataset(answers).to_batches(columns=["task_id", "predicted", "confidence"]):
        for tasks, labels, sure in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            counts.update(
                (t, a) for t, a, p in zip(tasks or (), labels or (), sure or (), strict=True) if p >= confidence
            )
    return counts
