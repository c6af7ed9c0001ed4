"""What a plan supposes of machines, model and notes, as the command line gives it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import InputError, Problem

SHARE = 0.4  # of the matrix peak where it is not measured: what well-kept training code reaches on long rows
MEMORY = re.compile(r"(?P<size>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?)B?", re.IGNORECASE)
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Options:
    """What a plan supposes."""

    gpus: tuple[int, ...] = (1,)
    peak: float | None = None  # FLOP/s of one GPU; None: this machine is measured
    share: float = SHARE
    memory: float | None = None  # bytes of one GPU
    model_config: Path | None = None  # a config.json, in place of the run's model
    notes: int | None = None  # to learn from; None: as many as there are
    trials: tuple[tuple[str, str, int], ...] = ()  # of a search: model, arm, trials


def parsed(
    gpus: str,
    peak: float | None,
    share: float,
    memory: str | None,
    model_config: Path | None,
    notes: int | None,
    trials: tuple[tuple[str, str, int], ...] = (),
) -> Options:
    """The options of the command. Raises `InputError` with everything that is wrong with them."""
    problems = []
    counts = [part for part in re.split(r"[,\s]+", gpus) if part]
    if not counts or not all(part.isdecimal() and int(part) for part in counts):
        problems.append(Problem("--gpus", f"{gpus!r} is no list of numbers such as 1,8,64"))
        counts = []
    size = MEMORY.fullmatch(memory.strip()) if memory is not None else None
    if memory is not None and size is None:
        problems.append(Problem("--memory", f"{memory!r} is no size such as 80GB or 40GiB"))
    if peak is not None and not 0 < peak < math.inf:
        problems.append(Problem("--peak", "must be more than 0, in FLOP/s: 990e12"))
    if not 0 < share <= 1:
        problems.append(Problem("--share", "must be more than 0 and at most 1"))
    if notes is not None and notes < 1:
        problems.append(Problem("--notes", "must be 1 or more"))
    if problems:
        raise InputError(problems)
    n_bytes = None if size is None else float(size["size"]) * _unit(size["unit"])
    return Options(tuple(int(part) for part in counts), peak, share, n_bytes, model_config, notes, trials)


def _unit(name: str) -> int:
    return int((1024 if name[1:] else 1000) ** POWERS[name[0].upper()])
