"""Tasks: one classification question each, with its options. Read from YAML, or from a table with one task per row.

The YAML file is local; its table (Parquet, JSONL or CSV) may be behind a URI, or lie beside it.

    defaults:                           # for every task below that does not say otherwise
      question: "{description}"
      verbalizers: {"1": "sì", "0": "no"}
    from_table: tasks.parquet           # columns task_id, kind, description, class_counts (JSON: label -> count)
    patterns:                           # for rows of the table: the first whose `match` fits the whole description
      - match: 'form is "(?P<form>.+)"'     # a regular expression; its named groups fill the question
        question: "La forma farmaceutica è {form}?"
    tasks:                              # tasks, or what to change of the table's task with the same id
      - id: smoking
        kind: multiclass                # binary (the default), multiclass or multilabel
        question: "Il paziente fuma?"   # may hold {id} and {description}
        options: ["current", "former", "never"]     # labels as the labels table writes them
        verbalizers: {current: "fumatore"}          # as the model says them; an option without one speaks for itself
        spans: [SMOKE]                  # types of the annotated spans (data.columns.spans, tags) that decide this task

Order of the options: as `options` says; else as `verbalizers`, if they name every label of the table; else sorted.
The first option of a binary task is the positive one.

multilabel: one yes/no question per option. The task becomes binary tasks `<id>.<option>` with the options "yes" and
"no" (verbalizers of these two name the answers, those of the labels fill {label} in the question). In the labels table
a note has one row per label that it carries, or one row with an empty label if it carries none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from raypipe.errors import InputError, Problem
from raypipe.guard import limits
from raypipe.notes import storage
from raypipe.settings import yamlfile
from raypipe.settings.sections.values import Name, Section
from raypipe.settings.yamlfile import Document

Kind = Literal["binary", "multiclass"]
YES, NO = "yes", "no"
MAX_LABEL = 100  # characters
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Task:
    """One question about a note. A multilabel task becomes one binary task per label when it is read."""

    id: str
    kind: Kind
    question: str  # fills {question} in the prompt
    options: tuple[str, ...]  # labels as the labels table writes them; binary: the first is the positive one
    answers: tuple[str, ...]  # the verbalised options, in the same order
    part_of: tuple[str, str] | None = None  # the multilabel task and its label that this task asks about
    spans: tuple[str, ...] = ()  # types of the annotated spans whose words decide it, if the corpus marks them


class Spec(Section):
    """Keys of a task, of defaults, and of a pattern."""

    kind: Literal["binary", "multiclass", "multilabel"] | None = None
    question: str | None = None
    options: tuple[str, ...] | None = None
    verbalizers: dict[str, str] | None = None


class Entry(Spec):
    """One task."""

    id: Name
    description: str | None = None
    spans: tuple[str, ...] = ()


class Pattern(Spec):
    """Keys for the rows of the table whose description it matches."""

    match: str

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        limits.compiled(value)
        return value


class TaskFile(Section):
    """The YAML file."""

    defaults: Spec = Spec()
    from_table: str | None = None
    patterns: tuple[Pattern, ...] = ()
    tasks: tuple[Entry, ...] = ()


def load_tasks(path: str, task_ids: Sequence[str] | None = None) -> list[Task]:
    """The tasks in a YAML file or a table, multilabel ones expanded, in the order of the file.

    `task_ids`: a subset; a multilabel id means all its parts. Raises `InputError` with every problem,
    `file:line: tasks.3.options: ...` each.
    """
    if storage.format_of(path):
        tasks = build(TaskFile(from_table=path), Document(path))
    else:
        document = yamlfile.read(path)
        tasks = build(yamlfile.validate(TaskFile, document), document)
    return _subset(tasks, task_ids)


def lines_of_tasks(path: str) -> dict[str, str]:
    """task id -> `file:line` of its entry; of a table, nothing."""
    if storage.format_of(path):
        return {}
    document = yamlfile.read(path)
    entries = document.value.get("tasks") if isinstance(document.value, dict) else None
    of_entry = {
        entry.get("id"): document.where(("tasks", i))
        for i, entry in enumerate(entries or ())
        if isinstance(entry, dict)
    }
    return {id: line.partition(": ")[0] for id, line in of_entry.items() if isinstance(id, str)}


def build(file: TaskFile, document: Document) -> list[Task]:
    """The tasks of a parsed file; `document` knows its name and lines, for messages."""
    problems: list[Problem] = []
    rows = _rows(_beside(document.name, file.from_table)) if file.from_table is not None else {}
    own = {entry.id: (entry, i) for i, entry in enumerate(file.tasks)}
    ids = [entry.id for entry in file.tasks]
    problems += [document.problem(("tasks", own[id][1]), f"id {id!r} given twice") for id in own if ids.count(id) > 1]
    tasks: list[Task] = []
    for id in dict.fromkeys([*rows, *own]):
        entry, i = own.get(id, (None, None))
        spec = _merge(file, id, rows.get(id, {}), entry)
        expanded = _expand(id, spec) if spec["kind"] == "multilabel" else [_task(id, spec)]
        for field, what in _faults(spec, expanded):
            place = document.where(("from_table",)) if i is None else document.where(("tasks", i, field))
            problems.append(Problem(place, what if i is not None else f"task {id!r}: {field} {what}"))
        tasks += expanded
    if not tasks and not problems:
        problems.append(document.problem((), "there is no task in it"))
    if len({task.id for task in tasks}) < len(tasks):
        problems.append(document.problem((), "two tasks have the same id once multilabel tasks are expanded"))
    if problems:
        raise InputError(problems)
    return tasks


def _beside(document: str, path: str) -> str:
    """A relative path in a task file is relative to that file."""
    return path if "://" in path or document == path else str(Path(document).parent / path)


def _rows(table_uri: str) -> dict[str, dict[str, Any]]:
    """The table's entry for each task."""
    columns = ("task_id", "kind", "description", "class_counts")
    rows: dict[str, dict[str, Any]] = {}
    problems = []
    for i, row in enumerate(storage.read_strings(table_uri, columns, "data.tasks").to_pylist()):
        where = f"{storage.redact(table_uri)}: row {i}"
        counts = _counts(row["class_counts"])
        if not _ID.fullmatch(row["task_id"] or ""):
            problems.append(Problem(where, f"task_id must match {_ID.pattern}: it becomes a folder name"))
        elif row["task_id"] in rows:
            problems.append(Problem(where, f"task_id {row['task_id']!r} given twice"))
        elif counts is None:
            problems.append(Problem(where, 'class_counts must be JSON such as {"1": 20, "0": 80}'))
        elif row["kind"] not in ("binary", "multiclass", "multilabel"):
            problems.append(Problem(where, "kind must be binary, multiclass or multilabel"))
        else:
            rows[row["task_id"]] = {
                "kind": row["kind"],
                "description": row["description"],
                # reversed for two: 1 before 0, yes before no, sì before no, true before false
                "labels": tuple(sorted(counts, reverse=row["kind"] == "binary")),
            }
    if problems:
        raise InputError(problems)
    return rows


def _counts(text: str | None) -> dict[str, Any] | None:
    try:
        counts = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return counts if isinstance(counts, dict) and counts else None


def _merge(file: TaskFile, id: str, row: Mapping[str, Any], entry: Entry | None) -> dict[str, Any]:
    """The keys of one task, from defaults, pattern, row and its own entry; a later one wins."""
    description = (entry and entry.description) or row.get("description") or id
    matches = ((pattern, _groups(pattern, description)) for pattern in file.patterns if row)
    pattern, groups = next((pair for pair in matches if pair[1] is not None), (None, None))
    spec: dict[str, Any] = {"kind": "binary", "question": "{description}", "verbalizers": {}}
    for one in (file.defaults, pattern, row, entry):
        spec |= {key: value for key, value in dict(one or {}).items() if value is not None}
    labels, verbalizers = row.get("labels"), spec["verbalizers"]
    if "options" not in spec:
        names_all_labels = (
            verbalizers and spec["kind"] != "multilabel" and (not labels or set(labels) == set(verbalizers))
        )
        spec["options"] = tuple(verbalizers) if names_all_labels else labels or ()
    fills = {**(groups or {}), "id": id, "description": description}
    for name, value in fills.items():
        spec["question"] = spec["question"].replace(f"{{{name}}}", value or "")
    # defaults may verbalise labels that this task does not have; its own entry may not
    spec["own_verbalizers"] = (entry.verbalizers if entry else None) or {}
    return spec


def _groups(pattern: Pattern, description: str) -> dict[str, str | None] | None:
    """What the pattern's groups match in a whole description; None if it does not fit."""
    try:
        return limits.fullmatch(pattern.match, description)
    except TimeoutError:
        what = f"the pattern {pattern.match!r} takes over {limits.LIMIT_S:g} s on one description: write a simpler one"
        raise InputError([Problem("data.tasks", what)]) from None


def _task(id: str, spec: Mapping[str, Any]) -> Task:
    answers = tuple(spec["verbalizers"].get(option, option) for option in spec["options"])
    return Task(id, spec["kind"], spec["question"], spec["options"], answers, spans=spec.get("spans", ()))


def _expand(id: str, spec: Mapping[str, Any]) -> list[Task]:
    """One binary task per label."""
    say = spec["verbalizers"]
    return [
        Task(
            id=f"{id}.{re.sub(r'[^A-Za-z0-9._-]+', '_', label)}",
            kind="binary",
            question=spec["question"].replace("{label}", say.get(label, label)),
            options=(YES, NO),
            answers=(say.get(YES, YES), say.get(NO, NO)),
            part_of=(id, label),
            spans=spec.get("spans", ()),
        )
        for label in spec["options"]
    ]


def _faults(spec: Mapping[str, Any], tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    options, kind = spec["options"], spec["kind"]
    labels = {*options, *((YES, NO) if kind == "multilabel" else ())}
    if not spec["question"].strip():
        yield "question", "is empty"
    for name in sorted(set(re.findall(r"\{\w+\}", tasks[0].question if tasks else ""))):
        yield "question", f"nothing fills {name}"
    if kind == "multilabel" and "{label}" not in spec["question"]:
        yield "question", "must hold {label}: it is asked once per label"
    if len(options) < (1 if kind == "multilabel" else 2) or (kind == "binary" and len(options) > 2):
        yield "options", f"a {kind} task cannot have {len(options)} options"
    if any(len(option) > MAX_LABEL for option in options):  # not quoted: the wrong column may hold notes
        yield "options", f"one has over {MAX_LABEL} characters: a label is a name; was a column of text taken?"
    if len(set(options)) < len(options) or not all(option.strip() for option in options):
        yield "options", "must be distinct and not empty"
    for option in sorted(spec["own_verbalizers"].keys() - labels):
        yield "verbalizers", f"{option!r} is not an option{yamlfile.did_you_mean(option, labels)}"
    for task in tasks[:1]:
        spoken = [answer.strip().casefold() for answer in task.answers]
        if not all(spoken):
            yield "verbalizers", "an answer is empty"
        elif len(set(spoken)) < len(spoken):
            yield "verbalizers", "two options have the same answer"
    for task in tasks:
        if not _ID.fullmatch(task.id):
            yield "options", f"{task.id[:64]!r}... is over 64 characters; task ids become folder names"


def _subset(tasks: Sequence[Task], task_ids: Sequence[str] | None) -> list[Task]:
    if task_ids is None:
        return list(tasks)
    names = {name for task in tasks for name in (task.id, task.part_of and task.part_of[0]) if name}
    unknown = [id for id in task_ids if id not in names]
    if unknown:
        hints = {id: yamlfile.did_you_mean(id, names) for id in unknown}
        raise InputError([Problem("data.task_ids", f"no task {id!r}{hint}") for id, hint in hints.items()])
    chosen = set(task_ids)
    return [task for task in tasks if task.id in chosen or (task.part_of and task.part_of[0] in chosen)]
