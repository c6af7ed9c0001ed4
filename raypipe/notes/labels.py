"""Labels: one row per task and note, and the rules that keep them honest.

A problem gives counts and at most a few hashed note ids: ids may be a hospital's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.hashing import stable_hash
from raypipe.notes import storage
from raypipe.notes.cleaning import hashed
from raypipe.notes.files import iter_notes
from raypipe.notes.leakage import is_of_other_part
from raypipe.notes.split import SPLITS, split_by_group
from raypipe.notes.tasks import NO, YES, Task
from raypipe.settings.config import Data
from raypipe.settings.yamlfile import did_you_mean

PROSE = 60  # characters of a value that is no name any more
_Counts = dict[str | None, dict[str, int]]  # label -> split -> rows


def read_labels(data: Data, tasks: Sequence[Task]) -> pa.Table:
    """The labels of `tasks` as `rows.LABELS`, those of multilabel tasks turned into yes and no per part.

    Raises `InputError` with every problem of the table itself; `problems_with` compares it with the notes, and
    `within_limits` applies the limits of `data`.
    """
    if data.labels is None:
        raise InputError([Problem("data.labels", "is not set: where are the labels?")])
    table = _wide(data, tasks) if data.label_columns.task_id is None else _long(data, tasks)
    if data.label_columns.split is None:
        table = split_by_group(table, pa.concat_tables(iter_notes(data, ["note_id", "group_id"])), data.split)
    table = table.select(rows.LABELS.names)
    problems = list(_split_problems(table))
    plain = table.filter(
        pc.is_in(table["task_id"], pa.array([task.id for task in tasks if not task.part_of], pa.string()))
    )
    parts = [task for task in tasks if task.part_of]
    if parts:
        plain = pa.concat_tables([plain, *_expanded(table, parts)])
        problems += _no_parts(table, parts, data.task_ids)
    problems += _row_problems(plain, tasks)
    if problems:
        raise InputError(problems)
    return plain.combine_chunks()


def _long(data: Data, tasks: Sequence[Task]) -> pa.Table:
    """The rows of `tasks`, of a table with a row per task and note."""
    named = data.label_columns.model_dump(exclude={"tasks"}, exclude_none=True)
    table = storage.read_strings(data.labels or "", list(named.values()), "data.labels", _fix(data))
    table = pa.table({ours: table[theirs] for ours, theirs in named.items()})
    ids = {task.part_of[0] if task.part_of else task.id for task in tasks}
    return table.filter(pc.is_in(table["task_id"], pa.array(sorted(ids))))


def _wide(data: Data, tasks: Sequence[Task]) -> pa.Table:
    """The same of a table with a row per note and a column per task. An empty cell is no label."""
    columns = data.label_columns
    ids = {task.id for task in tasks}
    without_column = ids - set(columns.tasks)
    problems = [  # a task that was taken out of the tasks file may stay named; one that is misspelt may not
        Problem("data.label_columns.tasks", f"there is no task {id!r}{meant}")
        for id in columns.tasks
        if id not in ids and data.task_ids is None and (meant := did_you_mean(id, without_column))
    ]
    parts = sorted({task.part_of[0] for task in tasks if task.part_of})
    problems += [
        Problem(f"data.labels: task {id!r}", "a multilabel task has no column in a wide table; make a task per label")
        for id in parts
    ]
    if problems:
        raise InputError(problems)
    of_task = {task.id: columns.tasks.get(task.id, task.id) for task in tasks}
    own = {"note_id": columns.note_id} | ({"split": columns.split} if columns.split is not None else {})
    needed = list(dict.fromkeys([*own.values(), *of_task.values()]))
    table = storage.read_strings(data.labels or "", needed, "data.labels", _fix(data))
    is_beside = data.notes is not None and os.path.abspath(data.notes) == os.path.abspath(data.labels or "")
    if is_beside and data.on_duplicate_id == "keep_first":  # as of the note, so of its labels
        _, first = np.unique(table[columns.note_id].fill_null("").to_numpy(zero_copy_only=False), return_index=True)
        table = table.take(np.sort(first))
    out = []
    for task_id, name in of_task.items():
        label = table[name]
        is_label = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(label)), 0), False)
        task = pa.repeat(task_id, table.num_rows).cast(pa.string())
        cells = {"task_id": task, "label": label, **{ours: table[theirs] for ours, theirs in own.items()}}
        out.append(pa.table(cells).filter(is_label))
    return pa.concat_tables(out)


def _fix(data: Data) -> str:
    """What to do about a column that is not there."""
    if data.label_columns.task_id is None:
        return "; name the tasks' columns in data.label_columns.tasks, or set data.label_columns.split to null"
    return "; data.label_columns says what columns are called, which of them are not there (null), and what is wide"


def problems_with(notes: pa.Table, labels: pa.Table) -> Iterator[Problem]:
    """What is wrong between labels and notes, if anything. `notes`: columns note_id and group_id of all notes."""
    absent = pc.unique(labels["note_id"].filter(pc.invert(pc.is_in(labels["note_id"], notes["note_id"]))))
    if len(absent):
        yield _problem("", f"{len(absent):,} labelled notes are not among the notes", absent)
    labelled = labels.join(notes.select(["note_id", "group_id"]), "note_id")
    grouped = labelled.filter(pc.is_valid(labelled["group_id"]))
    for task_id, groups in _straddling(grouped, "group_id"):
        yield _problem(task_id, f"{len(groups):,} groups (data.columns.group_id) have notes in two splits", groups)


def doubts(notes: pa.Table, labels: pa.Table) -> Iterator[str]:
    """Warnings: what is allowed, but may surprise. `notes`: columns note_id and group_id of all notes."""
    grouped = labels.join(
        notes.filter(pc.is_valid(notes["group_id"])).select(["note_id", "group_id"]), "note_id", join_type="inner"
    )
    for what, table, column in (("notes", labels, "note_id"), ("groups", grouped, "group_id")):
        splits = table.group_by(column).aggregate([("split", "count_distinct")])["split_count_distinct"]
        if n := pc.sum(pc.greater(splits, 1)).as_py():
            yield f"{n:,} {what} are in different splits of different tasks: one model learns all tasks from them"


def to_learn_from(labels: pa.Table, notes: pa.Table, tasks: Sequence[Task], data: Data) -> pa.Table:
    """`labels` less the training labels of notes that only pretraining reads. `notes`: columns note_id and group_id.

    Raises `InputError` if a task has one class left to learn from.
    """
    if not data.pretraining_share:
        return labels
    remaining = labels.filter(
        pc.or_(pc.not_equal(labels["split"], "train"), _is_learned(labels["note_id"], notes, data))
    )
    if problems := list(_one_class(counts_of(remaining), tasks, " outside data.pretraining_share")):
        raise InputError(problems)
    return remaining.combine_chunks()


def _is_learned(ids: pa.ChunkedArray, notes: pa.Table, data: Data) -> pa.ChunkedArray:
    """Which of these notes are outside the part that only pretraining reads."""
    pairs, share = zip(notes["note_id"].to_pylist(), notes["group_id"].to_pylist(), strict=True), data.pretraining_share
    learned = [pair[0] for pair in pairs if not is_of_other_part(*pair, share, pretrains=False)]
    return pc.is_in(ids, pa.array(learned, pa.string()))


def within_limits(labels: pa.Table, data: Data) -> pa.Table:
    """`labels` less what `max_labelled`, `max_dev` and `max_test` leave out, task by task.

    Notes are taken in the order of their hashed id, so a smaller limit takes a subset of what a larger one takes, and
    all tasks take the same notes. For training, the first note of each class of the task comes before all others:
    8 notes of a task with 1 % positives would hold none. The test split is taken as it falls: its prevalence is real.
    """
    split = labels["split"].to_numpy(zero_copy_only=False)
    keep = np.ones(len(split), dtype=bool)
    for name, limit in (("train", data.max_labelled), ("dev", data.max_dev), ("test", data.max_test)):
        if limit is not None:
            rows_N = np.flatnonzero(split == name)
            train = name == "train"
            place = _place_in_task(labels.take(rows_N), every_class=train, seed=data.label_seed if train else 0)
            keep[rows_N] = place < limit
    return labels.filter(pa.array(keep))


def for_self_supervision(notes: pa.Table, labels: pa.Table, data: Data) -> pa.Array:
    """Ids of the notes that reconstruction may learn from: the first `max_unlabelled` by hashed id.

    `notes`: columns note_id and group_id. Left out are notes labelled for dev or test and all notes of their groups,
    unless `data.transductive`, and those that only pretraining reads.
    """
    if data.pretraining_share:
        notes = notes.filter(_is_learned(notes["note_id"], notes, data))
    ids, groups = notes["note_id"].combine_chunks(), notes["group_id"].combine_chunks()
    if not data.transductive:
        held_out = pc.unique(labels["note_id"].filter(pc.not_equal(labels["split"], "train")))
        is_out = pc.is_in(ids, held_out)
        out_groups = pc.drop_null(groups.filter(is_out))
        is_out = pc.or_(is_out, pc.fill_null(pc.is_in(groups, out_groups, skip_nulls=True), False))
        ids = ids.filter(pc.invert(is_out))
    order = np.argsort(_hashes(ids.to_pylist()), kind="stable")
    return ids.take(pa.array(order[: data.max_unlabelled]))


def _split_problems(table: pa.Table) -> Iterator[Problem]:
    """Split names, and notes that stand in two splits of a task or twice in one."""
    odd = rows.counts(table["split"].filter(pc.invert(pc.is_in(table["split"], pa.array(SPLITS)))))
    if odd:
        yield Problem("data.labels", f"{_unquoted(odd, 'split')} none of {', '.join(SPLITS)}")
    for task_id, notes in _straddling(table, "note_id"):
        yield _problem(task_id, f"{len(notes):,} notes are in two splits", notes)


def _row_problems(labels: pa.Table, tasks: Sequence[Task]) -> Iterator[Problem]:
    """Labels that are no option, notes labelled twice, tasks without rows or with one class to learn from."""
    per_note = labels.group_by(["task_id", "note_id"]).aggregate([([], "count_all")])
    n_twice = rows.counts(per_note["task_id"].filter(pc.greater(per_note["count_all"], 1)))
    counts = counts_of(labels)
    for task in tasks:
        if n_twice.get(task.id):
            yield _problem(task.id, f"{n_twice[task.id]:,} notes have two labels")
        seen = counts.get(task.id)
        if seen is None:
            yield _problem(task.id, "has no rows in the labels table")
            continue
        odd = {label: sum(n.values()) for label, n in seen.items() if label not in task.options}
        if odd:
            what = f"{_unquoted(odd, 'label')} none of its options {task.options[:6]}"
            yield _problem(task.id, f"{what}; {_rename(task)}")
    yield from _one_class(counts, [task for task in tasks if task.id in counts])


def _unquoted(counts: Mapping[str | None, int], column: str) -> str:
    """How many unknown values a column has, without the values: it may be the column of the notes' text."""
    n_rows, values = sum(counts.values()), [value for value in counts if value is not None]
    hashes = sorted(map(hashed, values))[:3]
    shown = f"; hashed: {', '.join(hashes)}" if hashes else "; empty"
    is_text = any(len(value) > PROSE for value in values)
    hint = f" (the column {column} looks like text: is it the right one?)" if is_text else ""
    what = f"{len(counts):,} {column}s ({n_rows:,} rows{shown}) are" if len(counts) > 1 else ""
    return (what or f"1 {column} ({n_rows:,} rows{shown}) is") + hint


def _rename(task: Task) -> str:
    """How to make options of labels that stand for the same answers, such as 1 and 0 for yes and no."""
    answers = ", ".join(f"LABEL: {json.dumps(answer, ensure_ascii=False)}" for answer in task.answers[:3])
    more = ", ..." if len(task.answers) > 3 else ""
    return f"if they mean the same, write in the tasks file `verbalizers: {{{answers}{more}}}` in place of options"


def _one_class(counts: Mapping[str, _Counts], tasks: Sequence[Task], where: str = "") -> Iterator[Problem]:
    for task in tasks:
        seen = counts.get(task.id, {})
        n_classes = sum(1 for label in seen if seen[label].get("train"))
        if n_classes < 2:
            what = f"the train split has {n_classes} of its classes{where}; two are needed to learn anything"
            yield _problem(task.id, what)


def counts_of(labels: pa.Table) -> dict[str, _Counts]:
    """task id -> label -> split -> rows."""
    out: dict[str, _Counts] = {}
    grouped = labels.group_by(["task_id", "label", "split"]).aggregate([([], "count_all")])
    for row in grouped.to_pylist():
        out.setdefault(row["task_id"], {}).setdefault(row["label"], {})[row["split"]] = row["count_all"]
    return out


def _expanded(table: pa.Table, parts: Sequence[Task]) -> Iterator[pa.Table]:
    """Rows of each part: every note listed under the multilabel task, `yes` where it stands with the part's label."""
    for part in parts:
        task_id, label = part.part_of or ("", "")
        listed = table.filter(pc.equal(table["task_id"], task_id))
        has = pc.fill_null(pc.equal(listed["label"], label), False)
        grouped = listed.append_column("has", has).group_by(["note_id", "split"]).aggregate([("has", "any")])
        columns = {
            "task_id": pa.repeat(part.id, grouped.num_rows),
            "note_id": grouped["note_id"],
            "label": pc.if_else(grouped["has_any"], YES, NO),
            "split": grouped["split"],
        }
        yield pa.table(columns, schema=rows.LABELS)


def _no_parts(table: pa.Table, parts: Sequence[Task], task_ids: Collection[str] | None) -> Iterator[Problem]:
    """Labels of multilabel tasks that none of their parts asks about; an empty one says that no part is true.

    Where `task_ids` chooses some parts of a task, its other labels are no mistake.
    """
    labels_of: dict[str, set[str]] = {}
    for part in parts:
        task_id, label = part.part_of or ("", "")
        labels_of.setdefault(task_id, set()).add(label)
    counts = counts_of(table)
    for task_id, known in labels_of.items():
        of_task = counts.get(task_id, {})
        odd: dict[str | None, int] = {
            name: sum(n.values()) for name, n in of_task.items() if name and name not in known
        }
        if odd and (task_ids is None or task_id in task_ids):
            yield _problem(task_id, f"{_unquoted(odd, 'label')} none of its options: add them, or mend the table")


def _straddling(table: pa.Table, column: str) -> list[tuple[str, pa.Array]]:
    """(task, values of `column` that stand in more than one split of it)."""
    per_value = table.group_by(["task_id", column]).aggregate([("split", "count_distinct")])
    straddling = per_value.filter(pc.greater(per_value["split_count_distinct"], 1))
    return [
        (task_id, straddling.filter(pc.equal(straddling["task_id"], task_id))[column].combine_chunks())
        for task_id in pc.unique(straddling["task_id"]).to_pylist()
    ]


def _place_in_task(labels: pa.Table, every_class: bool, seed: int) -> np.ndarray:
    """For each row its place among the rows of its task: 0, 1, ... in the order of (seeded) hashed note id."""
    note = labels["note_id"].combine_chunks().dictionary_encode()
    hash_N = _hashes(note.dictionary.to_pylist(), seed)[note.indices.to_numpy()]
    task_N = labels["task_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    label_N = labels["label"].combine_chunks().dictionary_encode().indices.to_numpy()
    later_N = np.zeros(len(task_N), dtype=bool)
    if every_class:
        order = np.lexsort((hash_N, label_N, task_N))
        same = (np.diff(task_N[order]) == 0) & (np.diff(label_N[order]) == 0)
        later_N[order[1:]] = same  # the first of each class stays False
    order = np.lexsort((hash_N, later_N, task_N))
    starts = np.flatnonzero(np.diff(task_N[order], prepend=-1))
    place_N = np.empty(len(order), dtype=np.int64)
    place_N[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return place_N


def _hashes(ids: Sequence[str], seed: int = 0) -> np.ndarray:
    keys = [(note_id,) if seed == 0 else (seed, note_id) for note_id in ids]
    return np.asarray([stable_hash(*key) for key in keys], dtype=np.uint64)


def _problem(task_id: str, what: str, ids: Collection[pa.Scalar] = ()) -> Problem:
    examples = sorted(hashed(str(value)) for value in list(ids)[:3])
    shown = f" (hashed ids: {', '.join(examples)})" if examples else ""
    return Problem(f"data.labels: task {task_id!r}" if task_id else "data.labels", what + shown)
