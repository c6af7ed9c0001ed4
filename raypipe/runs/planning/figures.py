"""What a plan says, as plain values. Drawing them is text.py's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Z = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True)
class Interval:
    """A number estimated from a sample, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_total(cls, sampled: Sequence[float], n_all: int) -> Interval:
        """The sum over `n_all` notes, of which some were read; without width if those are all."""
        n = len(sampled)
        if not n:
            return cls(0.0, 0.0, 0.0)
        total = float(np.mean(sampled)) * n_all
        if n >= n_all:
            return cls(total, total, total)
        spread = float(np.std(sampled, ddof=1)) if n > 1 else total / n_all
        half = Z * n_all * spread / math.sqrt(n) * math.sqrt(1 - n / n_all)
        return cls(total, max(0.0, total - half), total + half)


@dataclass(frozen=True)
class Corpus:
    """The notes and the questions that they are asked."""

    notes: int  # in the files
    unreadable: int  # of those to learn from: dead letters before any model sees them
    to_learn_from: int  # for self-supervision
    is_count_stated: bool  # by --notes
    labelled: dict[str, int]  # notes with labels, by split
    sampled: int  # notes that were read
    tokens: Interval  # of the notes to learn from, as they stand
    truncated: float  # share of these notes that do not fit the context
    tokenizer: str  # where the tokens come from
    tasks: int
    questions_per_note: float
    forward_passes_saved: float  # passes over a note that its tasks share, over all notes
    flops_saved: float | None  # share of attribution's arithmetic that sharing saves


@dataclass(frozen=True)
class Step:
    """One step that is still to be made."""

    name: str  # relative to the run's folder
    kind: str  # training, attribution, scoring or rows
    rows: float = 0  # notes or training rows, each time they are read
    tokens: float = 0
    flops: float | None = 0.0  # None: not counted
    optimiser_steps: int = 0
    bytes: float = 0  # on disk when it is finished
    scratch_bytes: float = 0  # on disk while it is made
    cpu_seconds: float = 0  # of one core of this machine
    workers: int = 0  # GPUs that can take part; 0: as many as there are blocks, and no more than the actors
    shards: int = 0  # blocks of a stream
    remark: str = ""


@dataclass(frozen=True)
class Rate:
    """Arithmetic a second of one GPU."""

    flops: float
    source: str
    seconds_per_note: float | None = None  # of attribution, where it was measured and its arithmetic is not counted


@dataclass(frozen=True)
class Stage:
    """One step in time, on one GPU."""

    name: str
    seconds: float | None
    source: str


@dataclass(frozen=True)
class OnGpus:
    """The job on a number of GPUs."""

    gpus: int
    wall_hours: float
    gpu_hours: float  # held, from the first step to the last
    busy: float  # share of them in which a model runs
    shards_per_gpu: float


@dataclass(frozen=True)
class Memory:
    """What one GPU must hold, in bytes, by part."""

    of: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Several:
    """A comparison or a search: many runs that share steps."""

    what: str
    runs: int
    gpu_hours: float


@dataclass(frozen=True)
class Plan:
    """Everything that is said of a job before it starts."""

    name: str
    model: str
    parameters: int
    corpus: Corpus
    steps: list[Step]
    stages: list[Stage]
    seconds_per_note: float | None  # of attribution, on one GPU
    on_gpus: list[OnGpus]
    memory: list[Memory]
    memory_limit: float | None
    host_bytes: float  # the order of training rows, in the memory of each worker
    in_flight_bytes: float  # blocks in Ray's object store
    shards: int
    rows_per_block: int
    several: list[Several]
    advice: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> float:
        """On disk in the end."""
        return sum(step.bytes for step in self.steps)
