"""Is a finished step's output whole? The manifest lists its files, and whoever reads them asks here first.

`files` of a manifest has, by path relative to the step's folder: size (bytes), modified (nanoseconds), sha256, and of
Parquet its rows. Size and time are looked at whenever a step is read; the digest where they differ (a folder that was
copied), with `--verify`, and when reading fails. A manifest of an earlier version lists nothing: it is believed, until
reading fails or `--verify` is asked for; then every file of rows is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.errors import InputError, Problem
from raypipe.records import json_of, sha256, write_json
from raypipe.stream.cluster import WRITTEN

SETTINGS, MANIFEST, FILES = "settings.json", "manifest.json", "files"
INPUTS = "inputs"  # the same of the files that a corpus was made from, by their own paths (inputs.py)
# What lies beside a step's output: records of progress, and pages that are drawn again
PROGRESS, PAGES = {WRITTEN, "ray_train", "checkpoint"}, {"report.html", "metrics.json", "table.csv", "table.txt"}
AT_ONCE = 8  # files that are read side by side
FOREIGN = "is not of this step"
SHOWN = 5  # problems of one step that are named

Entry = dict[str, Any]


def listing(folder: Path, beside: Iterable[str] = ()) -> dict[str, Entry]:
    """The entry `files` of a manifest. `beside`: output outside of the folder, relative to it."""
    paths = [*_output(folder), *(path for name in beside for path in _output(Path(os.path.normpath(folder / name))))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip((os.path.relpath(path, folder) for path in paths), pool.map(_entry, paths), strict=True))


def demand_whole(folders: Iterable[Path], by_digest: bool = False) -> None:
    """Raise `InputError` with the damaged, missing and extra files of finished steps; others are not looked at."""
    problems = [problem for folder in dict.fromkeys(folders) for problem in _problems(folder, by_digest)]
    if problems:
        raise InputError(problems)


def finished(folder: Path) -> Iterator[Path]:
    """The folders of all finished steps below a folder."""
    yield from (path.parent for path in sorted(folder.rglob(MANIFEST)))


@contextmanager
def blamed(folders: Iterable[Path]) -> Iterator[None]:
    """What fails inside, fails with the files of these steps that are damaged, if any are."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        demand_whole(folders, by_digest=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """settings.json or manifest.json of a step. Raises `InputError` if it is broken, OSError if the disk is."""
    try:
        value = json_of(path)
    except (FileNotFoundError, IsADirectoryError, ValueError):
        value = None
    lists = [value.get(key, {}) for key in (FILES, INPUTS)] if isinstance(value, dict) else []
    if not lists or (path.name == MANIFEST and not all(map(_are_entries, lists))):
        raise InputError([_problem(path.parent, path.name, "cannot be read")])
    return value


def _are_entries(files: Any) -> bool:
    kinds = {"size": int, "modified": int, "sha256": str}
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        for entry in files.values()
    )


def drop(folder: Path, *names: str) -> None:
    """Delete parts of a finished output that nothing reads any more; its manifest stops listing them first."""
    manifest = folder / MANIFEST
    if manifest.exists():
        facts = read_json(manifest)
        files = {name: entry for name, entry in facts.get(FILES, {}).items() if name.split("/")[0] not in names}
        if files != facts.get(FILES, {}):
            times = manifest.stat()
            write_json(manifest, facts | {FILES: files})
            os.utime(manifest, ns=(times.st_atime_ns, times.st_mtime_ns))  # it says when the step ended
    for name in names:
        aside = folder / f"{name}~"  # renamed first: no kill leaves half of it under its name
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):
            (folder / name).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def repair(folder: Path) -> list[str]:
    """Delete what is damaged of a step, and say in lines what; the command that makes the step then completes it.

    Where Ray recorded which rows are written, the undamaged files stay and only the other rows are computed; any other
    step is deleted, but not the steps whose folders lie in its own.
    """
    if not (folder / SETTINGS).exists():
        raise InputError([Problem(str(folder), f"is no step's folder: it has no {SETTINGS}")])
    try:
        read_json(folder / SETTINGS)
        is_finished = (folder / MANIFEST).exists()
        damaged = dict(_damage(folder, by_digest=True)) if is_finished else {}
    except InputError as broken:
        _delete(folder)
        return [str(broken.problems[0].where), f"{folder}: deleted"]
    if not damaged:
        return [f"{folder}: {'nothing is damaged' if is_finished else 'is not finished'}; nothing to repair"]
    if set(damaged.values()) == {FOREIGN}:
        _unlink(folder, damaged)
        what = "these files are deleted; the step is whole"
    elif (folder / WRITTEN).is_dir():
        _unlink(folder, damaged)
        (folder / MANIFEST).unlink()  # last: until then it tells what is missing, if this is interrupted
        what = "these files are deleted; their rows are computed again"
    else:
        _delete(folder)
        what = "deleted; it is made again as a whole"
    return [*(f"{folder / name}: {how}" for name, how in damaged.items()), f"{folder}: {what}"]


def _unlink(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _problems(folder: Path, by_digest: bool) -> list[Problem]:
    damage = list(_damage(folder, by_digest)) if (folder / MANIFEST).exists() else []
    more = f" (and {len(damage) - SHOWN} more files)"
    return [
        _problem(folder, name, what + (more if n == SHOWN and len(damage) > n else ""))
        for n, (name, what) in enumerate(damage[:SHOWN], start=1)
    ]


def _problem(folder: Path, name: str, what: str) -> Problem:
    return Problem(str(folder / name), f"{what}; `raypipe repair {folder}`, and the same command makes it again")


def _damage(folder: Path, by_digest: bool) -> Iterator[tuple[str, str]]:
    """Names of files that are not as the manifest says, and what is wrong with each."""
    files: Mapping[str, Entry] | None = read_json(folder / MANIFEST).get(FILES)
    if files is None:
        paths = _output(folder) if by_digest else ()
        yield from ((os.path.relpath(path, folder), "cannot be read") for path in paths if not _is_readable(path))
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = pool.map(lambda name: verdict(folder / name, files[name], by_digest), files)
        yield from ((name, what) for name, what in zip(files, verdicts, strict=True) if what)
    parts = {name.split("/")[0] for name in files if "/" in name}  # folders: of rows, all files in them are read
    for path in _output(folder):
        name = os.path.relpath(path, folder)
        if name not in files and name.split("/")[0] in parts and "/" in name:
            yield name, FOREIGN


def verdict(path: Path, entry: Entry, by_digest: bool = False) -> str:
    """What is wrong with a file; empty if nothing is. Raises OSError if the disk does not say."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if status.st_size != entry["size"]:
        return f"is damaged: {status.st_size} bytes, not {entry['size']}"
    if not by_digest and status.st_mtime_ns == entry["modified"]:
        return ""
    digest = sha256(path) if by_digest else remembered(path, status.st_size, status.st_mtime_ns)
    return "" if digest == entry["sha256"] else "is damaged: its content has changed"


def _is_readable(path: Path) -> bool:
    """Can all rows of a file be read, if it is one of rows?"""
    if path.suffix != ".parquet":
        return True
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches():
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _entry(path: Path) -> Entry:
    status = path.stat()
    entry = {"size": status.st_size, "modified": status.st_mtime_ns, "sha256": sha256(path)}
    return entry | ({"rows": pq.read_metadata(path).num_rows} if path.suffix == ".parquet" else {})


@lru_cache(maxsize=1 << 16)
def remembered(path: Path, size: int, modified: int) -> str:
    """Of a folder that was copied, every file is read once by a command, not at each look."""
    return sha256(path)


def _output(folder: Path) -> list[Path]:
    """Files of a step's own output; no hidden ones, which file managers and network disks leave anywhere."""
    return [path for path in _files(folder) if not path.name.startswith(".")]


def _files(folder: Path) -> list[Path]:
    """All files of a step: not the two that describe it, and not what belongs to steps in folders inside."""
    paths, of_others = [], set()
    for root, folders, names in os.walk(folder):
        inside = Path(root)
        if inside == folder:
            folders[:] = sorted(set(folders) - PROGRESS)
            names = sorted(set(names) - PAGES - {SETTINGS, MANIFEST})
        elif SETTINGS in names:
            folders.clear()
            listed = read_json(inside / MANIFEST).get(FILES, {}) if MANIFEST in names else {}
            of_others |= {os.path.normpath(inside / name) for name in listed}
            continue
        paths += [inside / name for name in sorted(names)]
    return [path for path in paths if str(path) not in of_others]


def discard(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _delete(folder: Path) -> None:
    """A step's folder, but not the steps inside. What tells that something is wrong with it goes last."""
    for name in PROGRESS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in [*_files(folder), folder / MANIFEST, folder / SETTINGS]:
        path.unlink(missing_ok=True)
    for root, *_ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it is not empty: a step lies inside
            os.rmdir(root)
