"""In which order rows are learned: a function of the seed alone, the same for any number of workers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from raypipe.settings.config import Training

# Rows are sorted by length within windows of this many steps: little padding, and still random batches. Few rows have
# smaller windows: in one that held them all, every epoch of every seed would have the same batches, by length.
WINDOW_STEPS, MIN_WINDOWS = 64, 8
# A pass costs, beside its tokens, about as much as this many of them: where padding would cost more, a step takes
# another pass. A pass of few tokens keeps a CPU busy, and not a GPU (estimates of ours).
MAX_PADDING = {"cpu": 64, "cuda": 1024}

Indices = npt.NDArray[np.int64]


def steps(length_R: Indices, draw_R: npt.NDArray[np.int16], training: Training) -> list[Indices]:
    """Row indices of every optimiser step."""
    return [step for _, of_epoch in epochs(length_R, draw_R, training) for step in of_epoch]


def epochs(length_R: Indices, draw_R: npt.NDArray[np.int16], training: Training) -> list[tuple[float, list[Indices]]]:
    """The steps of each epoch, and how many epochs are over with them: the last one may be a part.

    Epoch e takes the rows of redraw e (in turn).
    """
    n_draws = int(draw_R.max()) + 1 if len(draw_R) else 1
    left = training.max_steps if training.max_steps is not None else sys.maxsize
    out: list[tuple[float, list[Indices]]] = []
    for epoch in range(math.ceil(training.epochs)):
        if left <= 0:
            break
        rows = np.flatnonzero(draw_R == epoch % n_draws)
        batches = _epoch(rows, length_R, training.batch_rows, np.random.default_rng((training.seed, epoch)))
        share = min(1.0, training.epochs - epoch)
        taken = batches[: min(left, max(1, round(len(batches) * share)))]
        out.append((epoch + len(taken) / max(1, len(batches)), taken))
        left -= len(taken)
    return out


def _epoch(rows: Indices, length_R: Indices, batch_rows: int, rng: np.random.Generator) -> list[Indices]:
    rows = rng.permutation(rows)
    n_whole = len(rows) // batch_rows
    rows, rest = np.split(rows, [n_whole * batch_rows])
    width = batch_rows * min(WINDOW_STEPS, max(1, n_whole // MIN_WINDOWS))
    batches: list[Indices] = []
    for start in range(0, len(rows), width):
        window = rows[start : start + width]
        window = window[np.argsort(length_R[window], kind="stable")]
        parts = [window[i : i + batch_rows] for i in range(0, len(window), batch_rows)]
        batches += [parts[i] for i in rng.permutation(len(parts))]
    if len(rest):  # rows of a small batch weigh more, so they are any rows, not the longest, at any place
        batches.insert(int(rng.integers(len(batches) + 1)), rest)
    return batches


def micro_batches(rows: Indices, length_R: Indices, max_tokens: int, max_padding: int) -> Iterator[Indices]:
    """Split one step's rows, sorted by length, into padded batches of at most `max_tokens` (or one row).

    At most `max_padding` of them are padding.
    """
    ordered = rows[np.argsort(length_R[rows], kind="stable")]
    start = n_real = 0
    for end, length in enumerate(length_R[ordered].tolist()):
        n_padded = (end + 1 - start) * length
        if end > start and (n_padded > max_tokens or n_padded - n_real - length > max_padding):
            yield ordered[start:end]
            start, n_real = end, 0
        n_real += length
    if len(ordered):
        yield ordered[start:]


def share_of(rows: Indices, length_R: Indices, rank: int, world_size: int) -> Indices:
    """The rows of a step that one worker computes: dealt by length, so that workers finish together."""
    return rows[np.argsort(length_R[rows], kind="stable")][rank::world_size]


def passes_of(
    rows: Indices, length_R: Indices, rank: int, world_size: int, max_tokens: int, device: str = "cpu"
) -> list[Indices]:
    """The micro-batches of one worker in a step. All workers have equally many, some of them perhaps empty.

    Sharded parameters are gathered in every pass, so a worker that has fewer must take part.
    """
    shares = (share_of(rows, length_R, other, world_size) for other in range(world_size))
    batches = [list(micro_batches(share, length_R, max_tokens, MAX_PADDING[device])) for share in shares]
    most = max(map(len, batches))
    return batches[rank] + [rows[:0]] * (most - len(batches[rank]))


def learning_rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then cosine to zero."""
    n_warmup = max(1, round(warmup * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))
