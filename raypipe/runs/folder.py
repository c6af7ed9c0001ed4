"""One step's folder on disk: whether its output is complete, what it was made from, and how it is declared complete.

A folder holds `settings.json` (all that its output depends on, written first) and `manifest.json` (facts about the
output and the packages that made it, written last). Without a manifest the step is unfinished, and the same command
goes on there. Looking at a folder writes nothing and refuses nothing; `open` claims it and does both.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint
from raypipe.records import versions, write_json
from raypipe.settings import configfile
from raypipe.settings.defaults import filled_in

SETTINGS, MANIFEST = "settings.json", "manifest.json"


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
    def data(self) -> Path:
        """Where the step's rows lie."""
        return self.path / "data"

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
        return filled_in(json.loads((self.path / SETTINGS).read_text()), self.settings)

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the finished output."""
        return json.loads((self.path / MANIFEST).read_text())

    def problem(self, command: str | None = None) -> Problem:
        """Why the output cannot be used now, and what to do. `command`: the one that makes it."""
        state = self.state
        if state is State.OUTGROWN:
            added = ", ".join(_added_arms(self.recorded, self.settings)) or "that ask for more"
            return Problem(str(self.path), f"was made without arms {added}, added since; {_hint(command)}")
        if state is State.OTHER:
            keys = ", ".join(configfile.changed_keys(self.recorded, self.settings))
            what = f"made with other settings ({keys}); change `name`, or delete the folder to redo it"
            return Problem(str(self.path), what)
        return Problem(str(self.path), f"{State.UNFINISHED.value}; {_hint(command)}")

    def open(self) -> StepFolder:
        """Claim the folder for these settings and begin to write. Raises `InputError` if other settings were here."""
        state = self.state
        if state in (State.OTHER, State.OUTGROWN):
            raise InputError([self.problem()])
        if state is State.ABSENT:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / SETTINGS, self.settings)
        self.opened = time.perf_counter()
        return self

    def finish(self, **facts: Any) -> None:
        """Declare the output complete; written last, and in one move."""
        seconds = time.perf_counter() - self.opened
        about = {"fingerprint": fingerprint(self.settings), "seconds": seconds}
        write_json(self.path / MANIFEST, about | facts | {"versions": versions()})

    def clear(self) -> None:
        """Delete the folder: moved aside first, because half of it would look whole; also what an earlier call left."""
        aside = self.path.with_name(f"{self.path.name}~")  # no arm can have this name
        shutil.rmtree(aside, ignore_errors=True)
        self.path.rename(aside)
        shutil.rmtree(aside)


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
