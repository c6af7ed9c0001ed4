"""Finished steps of a run, copied to an object store and back: `raypipe upload` and `raypipe download`.

In the store a run lies as it does on disk, and the rule of a step's folder (folder.py) holds there too: the files
first, `manifest.json` last, so that half a copy is no step. Nothing is renamed, because in a store that is copy and
delete. Every file is read back and compared with its SHA-256 in the manifest. What is there already is left: a file
that is the beginning of the one that comes is half of an interrupted copy and is completed; any other is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import posixpath
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import fs

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.notes import storage
from raypipe.runs.folder import refuse_links
from raypipe.runs.integrity import AT_ONCE, FILES, MANIFEST, SETTINGS
from raypipe.settings.sections.values import location

CHUNK = 1 << 23  # bytes that are read at once
_MAX_RECORD = 1 << 28  # bytes of a manifest; a store may hold anything
_ELSEWHERE = "another output lies there; delete it there, or name another place"


@dataclass(frozen=True)
class Place:
    """A run's folder, on disk or in a store. A key is a path below it."""

    filesystem: fs.FileSystem
    root: str  # as the file system names it: without a credential
    is_local: bool = False

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.root}/{key}"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file that is there, as of the first look."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.root, allow_not_found=True, recursive=True))
        return {info.path[len(self.root) + 1 :]: info.size for info in infos if info.is_file}

    def read(self, key: str) -> Iterator[bytes]:
        """The content, in chunks. Nothing is decompressed, whatever the name ends with."""
        with self.filesystem.open_input_stream(self.at(key), compression=None) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def record(self, key: str) -> bytes | None:
        """A small file as a whole; None if it is not there."""
        return b"".join(self.read(key)) if self.sizes.get(key, _MAX_RECORD) < _MAX_RECORD else None

    def write(self, key: str, chunks: Iterator[bytes]) -> str:
        """Write a file, and read it again: the SHA-256 of what lies there."""
        if self.is_local:
            Path(self.at(key)).parent.mkdir(parents=True, exist_ok=True)
        with self.filesystem.open_output_stream(self.at(key), compression=None) as stream:
            for chunk in chunks:
                stream.write(chunk)
        return self.sha256(key)

    def sha256(self, key: str) -> str:
        """Of what lies there."""
        digest = hashlib.sha256()
        for chunk in self.read(key):
            digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class File:
    """A file of a step, as the manifest says."""

    key: str
    size: int
    sha256: str
    modified: int | None = None  # nanoseconds


@dataclass(frozen=True)
class Step:
    """A finished step of the place that is copied from: its two records, and the files between them."""

    key: str
    settings: bytes
    manifest: bytes
    files: tuple[File, ...]


def on_disk(folder: Path) -> Place:
    """A run's folder. Raises `InputError` if it is or holds a link."""
    refuse_links(folder)
    return Place(fs.LocalFileSystem(), str(folder.absolute()), is_local=True)


def in_store(uri: str, name: str) -> Place:
    """The run called `name` in a folder of a store. Raises `InputError`: no store, a credential, cannot be opened."""
    try:
        filesystem, path = storage.opened(location(uri), "store")
    except ValueError as error:
        raise InputError([Problem("store", str(error))]) from None
    if isinstance(filesystem, fs.LocalFileSystem):
        raise InputError([Problem("store", "is a folder, and no object store: copy the run with its times (`cp -a`)")])
    return Place(filesystem, f"{path.rstrip('/')}/{name}")


def copy(source: Place, target: Place, say: Callable[[object], None]) -> int:
    """Copy the finished steps that are not there yet; how many. Raises `InputError` with all that differs or fails."""
    try:
        steps, problems = _steps(source)
        of_steps = {file.key for step in steps for file in step.files}
        of_steps |= {f"{step.key}/{name}" for step in steps for name in (SETTINGS, MANIFEST)}
        unknown = sorted(target.sizes.keys() - of_steps)
        problems += [problem for step in steps for problem in _hindrances(step, unknown, target)]
        if problems:
            raise InputError(problems)
        n = 0
        for step in steps:
            if target.record(f"{step.key}/{MANIFEST}") == step.manifest:
                say(f"{step.key}: is there")
                continue
            _copy_step(step, source, target)
            n += 1
            say(f"{step.key}: {len(step.files):,} files, {sum(file.size for file in step.files) / 1e6:,.1f} MB")
        return n
    except OSError as error:
        if error.errno not in (None, errno.ENOENT):
            raise  # of this machine's disk: told with its fix
        way = "is it there, and are its credentials in the environment? The same command goes on where it stopped"
        what = f"the store failed ({type(error).__name__}): {way}"
        raise InputError([Problem("store", what)], ExitCode.PARTIAL) from None  # its own words may quote anything


def _steps(source: Place) -> tuple[list[Step], list[Problem]]:
    steps, problems = [], []
    for key in sorted(posixpath.dirname(key) for key in source.sizes if posixpath.basename(key) == MANIFEST):
        if "~" in key:  # it was about to be deleted
            continue
        settings, manifest = source.record(f"{key}/{SETTINGS}"), source.record(f"{key}/{MANIFEST}")
        try:
            listed = json.loads(manifest or b"")[FILES]
            files = tuple(_file(key, name, entry) for name, entry in listed.items())
        except (ValueError, KeyError, TypeError, AttributeError):
            files = None
        if not key or settings is None or manifest is None or files is None:
            what = "is broken, or of an earlier version that lists no files: make the step again"
            problems.append(Problem(source.at(f"{key}/{MANIFEST}"), what))
        else:
            steps.append(Step(key, settings, manifest, files))
    if not steps and not problems:
        problems.append(Problem(source.root, "holds no finished step of this run"))
    return steps, problems


def _file(step: str, name: str, entry: dict[str, Any]) -> File:
    """Raises `ValueError` if the name leads out of the run's folder, or to what is no step's output."""
    key = posixpath.normpath(posixpath.join(step, name))
    is_inside = "/" in key and not key.startswith(("/", "../")) and key.isprintable() and "\\" not in key
    if not is_inside or posixpath.basename(key) in (SETTINGS, MANIFEST):
        raise ValueError(step)
    return File(key, int(entry["size"]), str(entry["sha256"]), int(entry["modified"]))


def _hindrances(step: Step, unknown: list[str], target: Place) -> Iterator[Problem]:
    """What lies at the target and is not this step, nor half a copy of it. `unknown`: keys there of no step, sorted."""
    for name, content in ((SETTINGS, step.settings), (MANIFEST, step.manifest)):
        there = target.record(f"{step.key}/{name}")
        if there is not None and not content.startswith(there):
            yield Problem(target.at(f"{step.key}/{name}"), _ELSEWHERE)
            return
    if target.record(f"{step.key}/{MANIFEST}") is None:
        first = bisect_left(unknown, f"{step.key}/")
        if first < len(unknown) and unknown[first].startswith(f"{step.key}/"):
            what = "is no file of the step that comes: it was begun there; " + _ELSEWHERE
            yield Problem(target.at(unknown[first]), what)


def _copy_step(step: Step, source: Place, target: Place) -> None:
    _record(target, f"{step.key}/{SETTINGS}", step.settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(lambda file: _bring(file, source, target), step.files) if problem]
    if problems:
        raise InputError(problems)
    _record(target, f"{step.key}/{MANIFEST}", step.manifest)


def _record(target: Place, key: str, content: bytes) -> None:
    if target.write(key, iter([content])) != hashlib.sha256(content).hexdigest():
        raise InputError([Problem(target.at(key), "is not what was written")])


def _bring(file: File, source: Place, target: Place) -> Problem | None:
    """Copy one file unless it is there; what is wrong, if anything is."""
    there = target.sizes.get(file.key)
    if there != file.size or target.sha256(file.key) != file.sha256:
        if there is not None and (there >= file.size or not _begins(file.key, source, target)):
            return Problem(target.at(file.key), _ELSEWHERE)
        if target.write(file.key, source.read(file.key)) != file.sha256:
            target.filesystem.delete_file(target.at(file.key))  # written here, and of no use
            return Problem(source.at(file.key), "is damaged, or changed on the way: its SHA-256 is not the manifest's")
    if target.is_local and file.modified is not None:
        os.utime(target.at(file.key), ns=(file.modified, file.modified))  # or every command would read it once more
    return None


def _begins(key: str, source: Place, target: Place) -> bool:
    """Is what lies at the target the beginning of the file? Chunks are of one size in both places."""
    pairs = zip(target.read(key), source.read(key), strict=False)
    return all(whole.startswith(part) for part, whole in pairs)
