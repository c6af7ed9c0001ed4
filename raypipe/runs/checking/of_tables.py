"""Notes, labels and tasks: each by itself, and against each other and the config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import Code, InputError, Problem
from raypipe.guard import limits
from raypipe.notes import labels as labels_of
from raypipe.notes import storage
from raypipe.notes.deciding import is_annotated, read_deciding
from raypipe.notes.files import iter_notes
from raypipe.notes.reading import of_pretraining, tables, units
from raypipe.notes.tasks import lines_of_tasks, load_tasks
from raypipe.runs.checking.check_report import CheckReport
from raypipe.runs.checking.collector import Collector
from raypipe.settings.config import Config, Data

SAMPLE = 8  # tables of reading.TEXT_ROWS notes whose text is looked at


def read(config: Config, tried: Collector) -> CheckReport:
    """The tables: each by itself, and labels against notes and tasks."""
    data = config.data
    tasks = tried(lambda: load_tasks(_set(data.tasks, "data.tasks"), data.task_ids)) or []
    labels = None
    if tasks:
        labels = tried(lambda: labels_of.read_labels(data, tasks))
    else:
        tried(lambda: storage.find(_set(data.labels, "data.labels"), "data.labels"))
    notes = tried(lambda: pa.concat_tables(iter_notes(data, ["note_id", "group_id"])))
    warnings: list[str] = []
    if notes is not None:
        tried(lambda: tried.problems.extend(_sample(config, warnings)))
        if notes.num_rows and data.columns.group_id and notes["group_id"].null_count == notes.num_rows:
            what = f"no note has a {data.columns.group_id!r}: notes of one patient could be in two splits; null if so"
            tried.problems.append(Problem("data.columns.group_id", what))
    if notes is not None and labels is not None:
        tried.problems += labels_of.problems_with(notes, labels)
        warnings += labels_of.doubts(notes, labels)
        readable = labels
        to_learn_from = tried(lambda: labels_of.to_learn_from(readable, notes, tasks, data))
        labels = labels_of.within_limits(labels if to_learn_from is None else to_learn_from, data)
    if tasks and notes is not None and is_annotated(data, tasks):
        tried(lambda: read_deciding(data, tasks))
    if data.pretraining is not None:
        pretraining = tried(lambda: of_pretraining(data))
        tried(lambda: units(pretraining or data.for_pretraining, "data.pretraining"))
        if pretraining is not None and data.columns.group_id and not _has_groups(pretraining):
            what = "notes of dev and test patients are held out of it by id and likeness alone"
            warnings.append(f"data.pretraining has no {data.columns.group_id!r}: {what}")
    n_notes = notes.num_rows if notes is not None else 0
    return CheckReport(tasks, labels if labels is not None else rows.LABELS.empty_table(), n_notes, warnings)


def _has_groups(data: Data) -> bool:
    return data.columns.group_id is not None and any(
        table["group_id"].null_count < table.num_rows for table in iter_notes(data, ["note_id", "group_id"])
    )


def of_splits(config: Config, labels: pa.Table) -> Iterator[Problem]:
    """Are there labels in the splits that the config wants to measure and to calibrate on?"""
    if not pc.any(pc.equal(labels["split"], config.evaluation.split)).as_py():
        yield Problem("evaluation.split", f"no task has labels in the split {config.evaluation.split}")
    if config.evaluation.conformal is not None and not pc.any(pc.equal(labels["split"], "dev")).as_py():
        yield Problem("evaluation.conformal", "needs labels in the split dev to calibrate on")


def _set(value: str | None, field: str) -> str:
    if value is None:
        raise InputError([Problem(field, "is not set")])
    return value


def in_tasks_file(problem: Problem, data: Data) -> Problem:
    """A problem of a task at its line of the tasks file."""
    prefix, _, task = problem.where.partition("data.tasks: task ")
    lines = lines_of_tasks(str(data.tasks)) if task and not prefix else {}
    parts = task.strip("'").split(".")  # a part of a multilabel task is <id>.<label>, and both may hold dots
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    line = next((lines[name] for name in names if name in lines), None)
    return replace(problem, where=f"{line}: task {task}") if line else problem


def _sample(config: Config, warnings: list[str]) -> Iterator[Problem]:
    """The first notes, with their text: a wrong column, or a pattern without end, shows here, not after an hour."""
    sample = pa.concat_tables(islice(tables(config.data, ["note_id", "text", "error"]), SAMPLE))
    yield from _patterns(config, sample["text"].drop_null().to_pylist())
    errors = sample["error"]
    n_bad = len(errors) - errors.null_count
    codes = ", ".join(sorted(set(errors.drop_null().to_pylist())))
    codes = codes.replace(Code.UTF8, f"{Code.UTF8}: not UTF-8; {storage.NOT_UTF8}")
    if not len(errors):
        yield Problem("data.notes", "holds no note")
    elif n_bad == len(errors):
        yield Problem("data.notes", f"none of the first {n_bad} notes can be used ({codes})")
    elif n_bad:
        warnings.append(f"{n_bad} of the first {len(errors)} notes cannot be used ({codes})")


def _patterns(config: Config, texts: list[str]) -> Iterator[Problem]:
    """Regular expressions that take too long on one of these texts."""
    for name, arm in config.arms.items():
        for pattern in arm.masking.phi_patterns if arm.masking is not None else ():
            try:
                for text in texts:
                    limits.spans(pattern, text)
            except TimeoutError:
                what = f"{pattern!r} takes over {limits.LIMIT_S:g} s on one of the first notes: write a simpler one"
                yield Problem(f"arms.{name}.masking.phi_patterns", what)
