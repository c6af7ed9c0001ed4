"""How fast attribution is, over all actors: tokens a second, and what share of the cards' peak they reach.

Read off the rows as files of them appear, wherever the actors run. FLOPs are model FLOPs (attribution/cost.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.attribution import cost
from raypipe.attribution.layers import stored_layers
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import RELEVANCE
from raypipe.models import loading
from raypipe.models.prompts import EncodedNote
from raypipe.models.shape import Shape, of_config
from raypipe.runs.names import SCORER
from raypipe.runs.progress import Pace
from raypipe.settings.arms import masking_of

if TYPE_CHECKING:
    from raypipe.runs.run import Run

FlopsOf = Callable[[dict[str, Any]], float]  # of a row of rows.ATTRIBUTED
COLUMNS = ["n_tokens", "task_id", "word_start"]


@dataclass
class Speed:
    """Tokens and arithmetic of the files in a folder, by the times at which they were seen."""

    flops_of: FlopsOf | None = None  # None: no share of a peak is said
    peak: Callable[[], float | None] = lambda: None  # FLOP/s of all cards, once it is measured
    cards: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    files: dict[Path, tuple[int, int]] = field(default_factory=dict)  # tokens and FLOPs of each
    paces: tuple[Pace, Pace] = field(default_factory=lambda: (Pace(), Pace()))

    def __call__(self, data: Path) -> str:
        """What to say now: 12,300 tokens/s, 41 % of the peak of 8 cards. Empty while too little was seen."""
        for path in data.glob("*.parquet"):
            if path not in self.files and (counted := self._count(path)) is not None:
                self.files[path] = counted
        # Python's integers: FLOPs of a large corpus go beyond 64 bits
        now, sums = self.clock(), [sum(column) for column in zip(*self.files.values(), (0, 0), strict=True)]
        for pace, done in zip(self.paces, sums, strict=True):
            pace.see(now, done)
        tokens, flops = (pace.rate for pace in self.paces)
        parts = [f"{tokens:,.0f} tokens/s"] if tokens else []
        if flops and (peak := self.peak()):
            parts.append(f"{flops / peak:.0%} of the peak of {self.cards:g} cards")
        return ", ".join(parts)

    def _count(self, path: Path) -> tuple[int, int] | None:
        """None while a worker still writes the file."""
        try:
            table = rows.read(path, COLUMNS if self.flops_of else COLUMNS[:1])
        except (OSError, pa.ArrowInvalid):
            return None
        attributed = table.filter(table["n_tokens"].is_valid())
        flops = sum(map(self.flops_of, attributed.to_pylist())) if self.flops_of else 0
        return sum(attributed["n_tokens"].to_pylist()), round(flops)


def of_attribution(run: Run) -> Speed:
    """Of the step that attributes. Where there are cards, the peak of one is measured beside it."""
    cluster = run.cluster
    return Speed(_flops_of(run) if cluster.gpus else None, cluster.peak(run.model(SCORER)), cluster.gpus)


def of_masking(run: Run) -> Speed | None:
    """The same where masks come out of the stream that attributes; stored relevance takes no arithmetic."""
    streams = RELEVANCE in needs(masking_of(run.settings)) and not run.is_done("attribute")
    return of_attribution(run) if streams else None


def _flops_of(run: Run) -> FlopsOf | None:
    """None where the passes of the method are not counted."""
    shape, encoder = Shape.of(of_config(loading.check(run.model(SCORER)))), run.encoder()
    attribution = run.settings.attribution
    layers, n_head = stored_layers(attribution, shape.depth), len(encoder.head_ids)

    def flops_of(row: dict[str, Any]) -> float:
        words, questions = len(row["word_start"]), tuple(encoder.questions[task] for task in row["task_id"])
        prefix, none = (0,) * (n_head + row["n_tokens"]), np.zeros((0, 2), np.int32)
        note = EncodedNote("", prefix, n_head, none, 0, questions, np.zeros((words, 2), np.int32))
        return cost.flops(shape, attribution, layers, cost.NoteSize.of(note)) or 0.0

    return flops_of if attribution.method in cost.COSTS else None
