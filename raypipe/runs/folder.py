"""One step's folder on disk: whether its output is complete, what it was made from, and how it is declared complete.

A folder holds `settings.json` (all that its output depends on, written first) and `manifest.json` (facts about the
output, its files and the packages that made it, written last). Without a manifest the step is unfinished, and the same
command goes on there. Looking at a folder writes nothing and refuses nothing, unless one of the two cannot be read;
`open` claims it and does both. Who reads the output asks for `output` or `data`, which refuse it if it is damaged.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint
from raypipe.records import forget_halves, versions, write_json
from raypipe.runs import inputs, integrity
from raypipe.runs.integrity import FILES, MANIFEST, SETTINGS
from raypipe.settings import configfile
from raypipe.settings.defaults import filled_in


class State(Enum):
    """What a folder holds, seen from the settings that are in force now."""

    ABSENT = "is not there"
    UNFINISHED = "is not finished"
    FINISHED = "is finished"
    OUTGROWN = "was made before arms were added"
    OTHER = "was made with other settings"


@dataclass
class StepFolder:
    """The folder of one step. `settings`: all that its output would depend on if it were made now."""

    path: Path
    settings: dict[str, Any]
    opened: float = field(default_factory=time.perf_counter)

    @property
    def output(self) -> Path:
        """The folder, to read from or, before it is finished, to write to.

        Raises `InputError` if files of a finished output are damaged, missing or not its own.
        """
        integrity.demand_whole([self.path])
        return self.path

    @property
    def data(self) -> Path:
        """Where the step's rows lie. Raises as `output` does."""
        return self.output / "data"

    @property
    def done(self) -> bool:
        """Is the output complete, and made with these settings?"""
        return self.state is State.FINISHED

    @property
    def is_readable(self) -> bool:
        """Is the output complete for the arms that it was made for? Others may have been added since."""
        return self.state in (State.FINISHED, State.OUTGROWN)

    @property
    def state(self) -> State:
        """What lies in the folder. Reads; never writes."""
        if not _was_begun(self.path):
            return State.ABSENT
        recorded = self.recorded
        is_complete = (self.path / MANIFEST).exists()
        if not configfile.changed_keys(recorded, self.settings):
            return State.FINISHED if is_complete else State.UNFINISHED
        return State.OUTGROWN if is_complete and _outgrows(recorded, self.settings) else State.OTHER

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that the output was made with; of keys that are newer than the output, their defaults."""
        return filled_in(inputs.without_strays(integrity.read_json(self.path / SETTINGS)), self.settings)

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the finished output."""
        return integrity.read_json(self.path / MANIFEST)

    def problem(self, command: str | None = None) -> Problem:
        """Why the output cannot be used now, and what to do. `command`: the one that makes it."""
        state = self.state
        if state is State.OUTGROWN:
            added = ", ".join(_added_arms(self.recorded, self.settings)) or "that ask for more"
            return Problem(str(self.path), f"was made without arms {added}, added since; {_hint(command)}")
        if state is State.OTHER:
            keys = ", ".join(configfile.changed_keys(self.recorded, self.settings))
            files = inputs.difference(self.recorded, self.settings)
            why = f"{keys}: {files}" if files else keys
            what = f"made with other settings ({why}); change `name`, or delete the folder to redo it"
            return Problem(str(self.path), what)
        return Problem(str(self.path), f"{State.UNFINISHED.value}; {_hint(command)}")

    def open(self) -> StepFolder:
        """Claim the folder for these settings and begin to write. Raises `InputError` if other settings were here."""
        state = self.state
        if state in (State.OTHER, State.OUTGROWN):
            raise InputError([self.problem()])
        forget_halves(self.path)
        if state is State.ABSENT:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (MANIFEST, "outcome.json", "data", "model", *integrity.PROGRESS):  # whose settings were lost
                integrity.discard(self.path / name)
            write_json(self.path / SETTINGS, self.settings)
        self.opened = time.perf_counter()
        return self

    def finish(self, beside: Sequence[str] = (), **facts: Any) -> None:
        """Declare the output complete, and say which files it has; written last, and in one move.

        `beside`: output that lies outside of the folder, relative to it.
        """
        seconds = time.perf_counter() - self.opened
        about = {"fingerprint": fingerprint(self.settings), "seconds": seconds}
        files = {FILES: integrity.listing(self.path, beside)}
        write_json(self.path / MANIFEST, about | facts | files | {"versions": versions()})

    def clear(self) -> None:
        """Delete the folder. It is renamed first, so that a crash leaves no half of it that looks whole."""
        aside = self.path.with_name(f"{self.path.name}~")  # no arm can have this name
        shutil.rmtree(aside, ignore_errors=True)
        self.path.rename(aside)
        shutil.rmtree(aside)


def refuse_links(folder: Path) -> None:
    """Raise `InputError` if a run's folder, or anything in it, is a symbolic link: output would land elsewhere."""
    links = [folder] if folder.is_symlink() else list(_links(folder))
    if links:
        what = "is a symbolic link, and links in a run's folder are not followed; delete it (`runs` may be a link)"
        raise InputError([Problem(str(link), what) for link in links])


def _links(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:  # which know without a further look at the disk what they are
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    yield from _links(Path(entry.path))


def _hint(command: str | None) -> str:
    return f"run `raypipe {command}` first, or `raypipe run` for all" if command else "run the same command again"


def _was_begun(path: Path) -> bool:
    """Is there more than settings? A folder that holds nothing else was claimed, but nothing was made in it."""
    return (path / SETTINGS).exists() and any(entry.name != SETTINGS for entry in path.iterdir())


def _added_arms(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    return sorted(settings.get("arms", {}).keys() - recorded.get("arms", {}).keys())


def _outgrows(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Do these settings ask for all that was made, and for more?

    Either arms were added to those that share the output, and all else is as it was; or the arms ask for further counts
    (`asked`, and the keys that come with it) over the same corpus.
    """
    if "asked" in recorded:
        same = configfile.common(settings, recorded) | {"asked": recorded["asked"]}
        return not configfile.changed_keys(recorded, same)
    added = _added_arms(recorded, settings)
    arms = {name: arm for name, arm in settings.get("arms", {}).items() if name not in added}
    return bool(added) and not configfile.changed_keys({"arms": {}, **recorded}, {**settings, "arms": arms})
