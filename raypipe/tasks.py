"""Tasks: one classification question each, with its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["binary", "multiclass"]


@dataclass(frozen=True)
class Task:
    """One question asked of a note. A multilabel task becomes one binary task per label when it is read."""

    id: str
    kind: Kind
    question: str  # fills {question} in the prompt
    options: tuple[str, ...]  # labels as the labels table writes them
    answers: tuple[str, ...]  # the same as the model says them (verbalizers), in the same order
