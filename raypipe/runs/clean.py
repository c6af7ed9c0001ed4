"""What the folder of a run may lose without losing a result, and what it must not. For `raypipe clean`.

May go: what an interrupted command left behind, checkpoints of trainings that have ended, and hidden states that every
probe has read. All of it is made again where it is needed again. Beside the run, the counts of corpora that runs share:
words of notes, which a run that lacks them counts again (corpus_counts.py); and what is left of clusters that were
started on this machine and have ended, of whichever run: Ray does not say whose they were, and a killed one leaves rows
with note text. Everything else stays: models, relevance, masks, predictions, the records of steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import InputError
from raypipe.guard.folders import why_open
from raypipe.records import halves
from raypipe.runs.folder import refuse_links
from raypipe.runs.integrity import MANIFEST, SETTINGS
from raypipe.runs.names import SHARED_COUNTS
from raypipe.stream.cluster import ended_sessions

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Dispensable:
    """A file or folder that may go."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes, of a folder with all that is in it."""
        return _size(self.path)

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


def demand_run(run: Path) -> None:
    """Raise `InputError` if the folder is none of a run: nothing else may be looked through for what to delete."""
    if not any((run / name).exists() for name in ("config.yaml", "tune")):
        raise InputError(f"{run} is not the folder of a run")


def dispensable(run: Path) -> list[Dispensable]:
    """What may go from the folder of a run, of its cells, variants and trials, too. Looks only.

    Raises `InputError` if the folder is none of a run, or holds links.
    """
    demand_run(run)
    refuse_links(run)  # what they lead to is not the run's
    by_path = {
        one.path: one for one in (*_left_behind(run), *_checkpoints(run), *_states(run), *_counts(run), *_sessions())
    }
    return [one for path, one in sorted(by_path.items()) if not any(parent in by_path for parent in path.parents)]


def _left_behind(run: Path) -> Iterator[Dispensable]:
    for path in run.rglob("*~"):
        if path.is_dir() and (path / SETTINGS).exists():
            yield Dispensable(path, "was to be deleted by a command that was interrupted")
    for path in halves(run.rglob("*.new")):
        yield Dispensable(path, "is half a record of a command that was interrupted")


def _checkpoints(run: Path) -> Iterator[Dispensable]:
    for path in run.rglob(CHECKPOINT):
        if path.is_dir() and (path.parent / MANIFEST).exists():
            yield Dispensable(path, "is a checkpoint of a training that has ended")


def _states(run: Path) -> Iterator[Dispensable]:
    """Hidden states of models whose probe has read them."""
    for manifest in run.rglob(f"states/**/{MANIFEST}"):
        step = manifest.parent
        parts = list(step.relative_to(run).parts)
        parts[len(parts) - 1 - parts[::-1].index("states")] = "probe"
        if (run.joinpath(*parts) / MANIFEST).exists():
            yield Dispensable(step, "are hidden states that the probe has read")


def _counts(run: Path) -> Iterator[Dispensable]:
    for counts in (run.resolve().parent / SHARED_COUNTS, *run.rglob(SHARED_COUNTS)):  # runs in this one share some, too
        if counts.is_dir() and not any(why_open(path, is_own=True) for path in (counts.parent, counts)):
            yield Dispensable(counts, "are words of notes and their counts, which runs beside each other share")


def _sessions() -> Iterator[Dispensable]:
    for session in ended_sessions():
        yield Dispensable(session, "is what a Ray that has ended left on this machine: logs, and perhaps note text")


def sizes(run: Path) -> dict[str, int]:
    """Bytes of each entry of the folder, largest first."""
    entries = {entry.name: _size(entry) for entry in run.iterdir()}
    return dict(sorted(entries.items(), key=lambda entry: -entry[1]))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
