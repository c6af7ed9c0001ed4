"""Labels under other column names, in a wide table, and without a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from raypipe.errors import InputError
from raypipe.notes import labels
from raypipe.notes.tasks import NO, YES, Task
from raypipe.settings.config import Columns, Data, LabelColumns, Splitting

FEVER = Task("fever", "binary", "Fever?", ("1", "0"), ("yes", "no"))
SMOKING = Task("smoking", "binary", "Smokes?", ("now", "never"), ("now", "never"))
PLAIN = [("fever", f"n{i}", str(i % 2), ("train", "dev", "test")[i // 4]) for i in range(12)]


def _table(path: Path, rows: list[Any], *columns: str) -> str:
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines))
    return str(path)


def _read(tasks: list[Task], **data: Any) -> list[tuple[str, ...]]:
    table = labels.read_labels(Data(**data), tasks)
    assert table.column_names == ["task_id", "note_id", "label", "split"]
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_a_patient_in_two_splits_of_two_tasks_is_a_doubt() -> None:
    rows = [("fever", "a", "1", "train"), ("cough", "b", "0", "test"), ("cough", "c", "1", "train")]
    given = pa.Table.from_pylist(
        [dict(zip(("task_id", "note_id", "label", "split"), row, strict=True)) for row in rows]
    )

    def said(*groups: str | None) -> list[str]:
        return list(
            labels.doubts(pa.table({"note_id": ["a", "b", "c"], "group_id": pa.array(groups, pa.string())}), given)
        )

    assert said("p", "q", "q") == [
        "1 groups are in different splits of different tasks: one model learns all tasks from them"
    ]
    assert said("p", "p", None)[0].startswith("1 groups")
    assert said("p", "q", "p") == said(None, None, None) == []


def test_columns_of_any_name(tmp_path: Path) -> None:
    path = _table(tmp_path / "l.csv", PLAIN, "quesito", "id nota", "esito", "parte")
    columns = LabelColumns(task_id="quesito", note_id="id nota", label="esito", split="parte")
    assert _read([FEVER], labels=path, label_columns=columns) == sorted(PLAIN)


def test_a_wide_table_has_a_column_per_task_and_empty_cells(tmp_path: Path) -> None:
    rows = [
        (f"n{i}", '"a\nnote, in two lines"', str(i % 2), ["now", "", "never", " "][i % 4], "train") for i in range(8)
    ]
    path = _table(tmp_path / "l.csv", rows, "ID", "text", "Fever > 38?", "smoking", "split")
    wide = LabelColumns(note_id="ID", task_id=None, tasks={"fever": "Fever > 38?"})
    read = _read([FEVER, SMOKING], labels=path, label_columns=wide)
    assert [row[1:3] for row in read if row[0] == "fever"] == [(f"n{i}", str(i % 2)) for i in range(8)]
    assert [row[1:3] for row in read if row[0] == "smoking"] == [
        ("n0", "now"), ("n2", "never"), ("n4", "now"), ("n6", "never")
    ]  # fmt: skip


def test_a_wide_parquet_table_with_nulls_and_whole_numbers(tmp_path: Path) -> None:
    table = {"note_id": ["a", "b", "c"], "fever": pa.array([1, 0, None], pa.int64()), "split": ["train"] * 3}
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    read = _read([FEVER], labels=str(tmp_path / "l.parquet"), label_columns=LabelColumns(task_id=None))
    assert [row[1:3] for row in read] == [("a", "1"), ("b", "0")]


def test_of_a_repeated_note_the_first_row_has_the_labels(tmp_path: Path) -> None:
    rows = [("a", "first", "1", "train"), ("a", "again", "0", "train"), ("b", "other", "0", "train")]
    path = _table(tmp_path / "l.csv", rows, "note_id", "text", "fever", "split")
    both = {"notes": path, "labels": path, "label_columns": LabelColumns(task_id=None)}
    with pytest.raises(InputError, match="1 notes have two labels"):
        _read([FEVER], **both)
    assert [row[1:3] for row in _read([FEVER], on_duplicate_id="keep_first", **both)] == [("a", "1"), ("b", "0")]


def test_without_a_split_one_is_made_by_patient(tmp_path: Path) -> None:
    notes = _table(tmp_path / "n.csv", [(f"n{i}", "text", f"p{i // 3}") for i in range(60)], "note_id", "text", "who")
    path = _table(
        tmp_path / "l.csv", [("fever", f"n{i}", str(i % 2)) for i in range(60)], "task_id", "note_id", "label"
    )
    columns = {"columns": Columns(group_id="who"), "label_columns": LabelColumns(split=None)}
    read = _read([FEVER], notes=notes, labels=path, split=Splitting(dev=0.2, test=0.3), **columns)
    split_of = {note_id: split for _, note_id, _, split in read}
    assert all(len({split_of[f"n{i + k}"] for k in range(3)}) == 1 for i in range(0, 60, 3))
    assert {split: list(split_of.values()).count(split) for split in ("train", "dev", "test")} == {
        "train": 30, "dev": 12, "test": 18
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "tasks", "said"),
    [
        ({}, [FEVER], "no column note_id, task_id, label, split; data.label_columns says what columns are called"),
        ({"task_id": None, "note_id": "ID"}, [FEVER], "no column split, fever (there is 'Fever'); name the tasks"),
        ({"task_id": None, "tasks": {"fevr": "Fever"}}, [FEVER], "there is no task 'fevr'. Did you mean 'fever'?"),
        (
            {"task_id": None, "note_id": "ID", "split": None},
            [Task("s.a", "binary", "?", (YES, NO), (YES, NO), ("s", "a"))],
            "task 's': a multilabel task has no column in a wide table",
        ),
    ],
)
def test_what_is_missing_is_said_with_the_way_out(
    tmp_path: Path, columns: dict[str, Any], tasks: list[Task], said: str
) -> None:
    path = _table(tmp_path / "l.csv", [("n1", "1")], "ID", "Fever")
    with pytest.raises(InputError) as error:
        labels.read_labels(Data(labels=path, label_columns=LabelColumns(**columns)), tasks)
    assert said in str(error.value)


def test_columns_of_a_wide_table_may_name_tasks_that_were_taken_out(tmp_path: Path) -> None:
    rows = [(f"n{i}", str(i % 2), "M", ("train", "dev", "test")[i % 3]) for i in range(12)]
    path = _table(tmp_path / "l.csv", rows, "note_id", "Febbre?", "Sesso", "split")
    columns = {"task_id": None, "tasks": {"fever": "Febbre?", "never": "Sesso"}}
    assert len(_read([FEVER], labels=path, label_columns=LabelColumns(**columns))) == 12


def test_labels_under_other_names_than_the_options_say_what_to_write(tmp_path: Path) -> None:
    path = _table(tmp_path / "l.csv", PLAIN, "task_id", "note_id", "label", "split")
    task = Task("fever", "binary", "Fever?", ("yes", "no"), ("yes", "no"))
    with pytest.raises(InputError) as error:
        labels.read_labels(Data(labels=path), [task])
    assert 'write in the tasks file `verbalizers: {LABEL: "yes", LABEL: "no"}`' in str(error.value)


def test_columns_of_tasks_need_a_wide_table() -> None:
    with pytest.raises(ValidationError, match="set `task_id: null`"):
        LabelColumns(tasks={"fever": "Fever"})


def test_a_split_leaves_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="nothing to train on"):
        Splitting(dev=0.5, test=0.5)
