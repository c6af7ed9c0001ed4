"""The input files of a run: what of them is recorded with each step, and when a file is still the one of then.

A step records name, size and time of every file. Data that is copied again, or mounted elsewhere and back, has other
times and the same content: the step `corpus` keeps the SHA-256 of every local file, and a file that differs in its time
alone counts as the one of then if its content does not differ. What lies in an object store is told by its time alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raypipe.errors import InputError
from raypipe.hashing import fingerprint
from raypipe.notes import storage
from raypipe.notes.tasks import load_tasks
from raypipe.runs import integrity, of_arms
from raypipe.runs.integrity import AT_ONCE, INPUTS, MANIFEST, SHOWN, Entry
from raypipe.settings.config import Config

File = tuple[str, int, int | None]  # path, size, and when it was written (nanoseconds)


def listing(settings: Config) -> dict[str, Any]:
    """Name, size and time of every input file; tasks by content, because they may come from several files.

    Nothing is listed of what is not there any more: a report can do without, and a run checks its input first.
    Weights in a local folder may change under the same name; ids of a hub name a commit.
    """
    data = settings.data
    models = {
        "model": [settings.model.path, settings.model.adapter],
        "statistics": [settings.statistics.encoder],
    }
    files: dict[str, Any] = {
        section: {path: _listed(path, section) for path in paths if path and Path(path).is_dir()}
        for section, paths in models.items()
    }
    if data.source == "files":
        uris = {name: getattr(data, name) for name in ("notes", "labels", "pretraining")}
        files |= {name: _listed(uri, f"data.{name}") for name, uri in uris.items() if uri}
        files["tasks"] = fingerprint([asdict(task) for task in load_tasks(str(data.tasks), data.task_ids)])
    return files


def _listed(uri: str, field: str) -> list[Any]:
    try:
        return storage.listing(uri, field)
    except InputError:
        return []


def reads_the_same(base: Config, settings: Config) -> bool:
    """Do both configs list the same input files?"""
    return (base.data, base.model, base.statistics) == (settings.data, settings.model, settings.statistics)


def digests(listed: Mapping[str, Any], settings: Config, before: Mapping[str, Entry]) -> dict[str, Entry]:
    """For the manifest of a corpus: the content of every local file that some step may read, by path.

    `listed`: the listing of the input. `before`: what the corpora of the run's bases keep, so that none is read twice.
    """
    copied = copies(before)
    files = sorted({copied.get(file, file) for file in _files([listed, of_arms.masks(settings)])})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        entries = pool.map(lambda file: _digest(file, before.get(file[0])), files)
        return {file[0]: entry for file, entry in zip(files, entries, strict=True) if entry is not None}


def _digest(file: File, before: Entry | None) -> Entry | None:
    """None of a file that is not there as it was listed: it lies in a store, or changes this very moment."""
    path, size, modified = file
    if before is not None and (before["size"], before["modified"]) == (size, modified):
        return before
    with suppress(OSError):
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns) == (size, modified):
            return {"size": size, "modified": modified, "sha256": integrity.remembered(Path(path), size, modified)}
    return None


def recorded(corpus: Path) -> dict[str, Entry]:
    """What a finished corpus keeps of its input files. Nothing if it is broken: whoever reads its output says so."""
    with suppress(InputError):
        if (corpus / MANIFEST).exists():
            return dict(integrity.read_json(corpus / MANIFEST).get(INPUTS, {}))
    return {}


def copies(entries: Mapping[str, Entry]) -> dict[File, File]:
    """Files that are what they were but for their time: as they are -> as they were. Reads those, each once."""
    out: dict[File, File] = {}
    for path, entry in entries.items():
        with suppress(OSError):
            status = os.stat(path)
            now, then = (path, status.st_size, status.st_mtime_ns), (path, entry["size"], entry["modified"])
            if now != then and not integrity.verdict(Path(path), entry):
                out[now] = then
    return out


def as_recorded(value: Any, copied: Mapping[File, File]) -> Any:
    """Settings of a step in which every file of `copied` is listed as it was."""
    if _is_file(value):
        return list(copied.get(tuple(value), value))
    if isinstance(value, Mapping):
        return {key: as_recorded(inner, copied) for key, inner in value.items()}
    return [as_recorded(inner, copied) for inner in value] if isinstance(value, list) else value


def without_strays(value: Any) -> Any:
    """Recorded settings, each listing in them as it would be listed now: earlier versions listed stray files, too."""
    if isinstance(value, Mapping):
        return {key: without_strays(inner) for key, inner in value.items()}
    return storage.without_strays(value) if isinstance(value, list) and value and all(map(_is_file, value)) else value


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which files differ between the settings of a step; empty if none do."""
    before, after = ({file[0]: file for file in _files(settings)} for settings in (then, now))
    paths = sorted({path for path, *_ in {*before.values()} ^ {*after.values()}})
    how = [
        f"{path} {'is new' if path not in before else 'is gone' if path not in after else 'has changed'}"
        for path in paths[:SHOWN]
    ]
    return ", ".join([*how, *([f"and {len(paths) - SHOWN} more files"] if len(paths) > SHOWN else [])])


def _files(value: Any) -> Iterator[File]:
    """All files that are listed somewhere in a value."""
    if _is_file(value):
        yield tuple(value)
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _files(inner)


def _is_file(value: Any) -> bool:
    """Is it what `storage.listing` says of a file?"""
    return isinstance(value, list) and [type(part) for part in value[:2]] == [str, int] and len(value) == 3
