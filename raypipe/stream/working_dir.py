"""What travels with a submitted job: the config, and the small files that it names by a relative path.

An absolute path, or a URI, is one that every node sees, and stays as it is. Notes, labels, models and statistics never
travel, so a relative path to one of them is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.notes import storage
from raypipe.settings import yamlfile
from raypipe.settings.config import Config

MAX_BYTES = 10_000_000
N_LARGEST = 5  # files that a refusal names
OUTSIDE = "lies outside this folder: run the command where the config's relative paths begin, or name an absolute path"


def place_of(config: Path) -> Path:
    """Where a config lies in the working directory."""
    here = Path.cwd()
    absolute = Path(os.path.normpath(config.absolute()))  # ../my.yaml lies elsewhere
    return absolute.relative_to(here) if absolute.is_relative_to(here) else Path(config.name)


def files(config: Path, settings: Config, space: Path | None = None) -> dict[Path, Path]:
    """Place in the working directory -> file here. Raises `InputError` with everything that cannot travel."""
    if not config.is_file():  # the folder of a run, which names its config elsewhere
        raise InputError([Problem("--config", f"{config} is no file: name the config itself")])
    named = {place_of(config): config}
    problems = list(_left_behind(settings))
    for key, path in (*_small_files(settings), *([("--space", space)] if space else [])):
        if path.is_absolute():
            continue
        if ".." in path.parts:
            problems.append(Problem(key, f"{path} {OUTSIDE}"))
        elif not path.is_file():
            problems.append(Problem(key, f"{path} is not here; an absolute path is taken for one of the cluster's"))
        else:
            named[path] = path
    sizes = {place: file.stat().st_size for place, file in named.items()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(sizes, key=lambda place: -sizes[place])[:N_LARGEST]
        what = f"over {MAX_BYTES / 1e6:.0f} MB would travel with the job, the largest: "
        what += ", ".join(f"{place} ({sizes[place] / 1e6:.1f} MB)" for place in largest)
        problems.append(Problem("", f"{what}; put them on storage that all nodes share, and name absolute paths"))
    if problems:
        raise InputError(problems)
    return named


def build(named: Mapping[Path, Path], folder: Path) -> None:
    """Copy the files to their places in a new folder."""
    for place, file in named.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)


def _small_files(settings: Config) -> Iterator[tuple[str, Path]]:
    """Key and path of task files, their tables, and lexicons."""
    tasks = settings.data.tasks
    if tasks and "://" not in tasks:
        yield "data.tasks", Path(tasks)
        if Path(tasks).is_file() and not storage.format_of(tasks):
            table = _table_of(tasks)
            if table and "://" not in table:
                yield f"{tasks}: from_table", Path(tasks).parent / table
    for name, arm in settings.arms.items():
        if arm.masking and arm.masking.mslm.lexicon:
            yield f"arms.{name}.masking.mslm.lexicon", Path(arm.masking.mslm.lexicon)


def _table_of(tasks: str) -> str | None:
    value = yamlfile.read(tasks).value
    table = value.get("from_table") if isinstance(value, dict) else None
    return table if isinstance(table, str) else None


def _left_behind(settings: Config) -> Iterator[Problem]:
    """Relative paths to what does not travel."""
    data, statistics = settings.data, settings.statistics
    general = statistics.general_counts
    always: Sequence[tuple[str, str | None]] = (
        ("runs", settings.runs),
        ("data.notes", data.notes),
        ("data.labels", data.labels),
        ("data.pretraining", data.pretraining),
        ("model.adapter", settings.model.adapter),
        ("statistics.general_counts", None if general == "pretraining" else general),
        ("statistics.encoder", statistics.encoder),
    )
    models = [("model.path", settings.model.path), *(("tune.models", model) for model in settings.tune.models)]
    folders = [(key, path) for key, path in models if Path(path).is_dir()]  # else a hub id, or `pretrain`
    for key, path in (*always, *folders):
        if path is not None and "://" not in path and not Path(path).is_absolute():
            yield Problem(key, f"{path} does not travel: name an absolute path that every node sees")
