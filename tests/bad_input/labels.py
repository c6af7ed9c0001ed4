"""Labels and tasks: wrong cells, wrong columns, broken files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tests.bad_input.case import CANARY, Case, Handled, Refused
from tests.bad_input.files import BYTES, CHECK, as_csv, as_jsonl, as_parquet, case_of
from tests.bad_input.ground import LABELS, TASKS, Ground, write_csv


def _labels(**changes: Any) -> list[dict[str, Any]]:
    """The labels with the first row's cells changed."""
    return [LABELS[0] | changes, *LABELS[1:]]


def labels(ground: Ground) -> Iterator[Case]:
    """Tables of labels: wrong cells, wrong columns, broken files."""
    said = f"Paziente {CANARY}, in pronto soccorso per dolore toracico e febbre da due giorni circa."
    cells: list[tuple[str, list[dict[str, Any]], str]] = [
        *(
            (f"label {label!r:.20}", _labels(label=label), "none of its options")
            for label in (CANARY, "", " 1", "1 ", "sì", "1.0", "\x1b[2J", said)
        ),
        *(
            (f"split {split!r:.20}", _labels(split=split), "none of train, dev, test")
            for split in (CANARY, "", "Train", "validation", "\x9b", said)
        ),
        *(
            (f"task {task!r:.20}", [row | {"task_id": task} for row in LABELS], "has no rows in the labels table")
            for task in (CANARY, "", "Fever", said)
        ),
        ("a note that is not there", _labels(note_id=CANARY), "1 labelled notes are not among the notes"),
        ("two labels", [LABELS[0] | {"label": "0"}, *LABELS], "1 notes have two labels"),
        ("a label twice", [LABELS[0], *LABELS], "1 notes have two labels"),
        ("two splits", [LABELS[0] | {"split": "test"}, *LABELS], "1 notes are in two splits"),
        (
            "one class",
            [row | {"label": "1"} if row["task_id"] == "fever" else row for row in LABELS],
            "the train split has 1 of its classes",
        ),
        (
            "no training labels",
            [row for row in LABELS if row["split"] != "train"],
            "the train split has 0 of its classes",
        ),
        (
            "no test labels",
            [row for row in LABELS if row["split"] != "test"],
            "evaluation.split: no task has labels in the split test",
        ),
        ("one task", [row for row in LABELS if row["task_id"] == "fever"], "'kind': has no rows"),
    ]
    for name, table, place in cells:
        yield Case(name, CHECK, Refused(place), lambda f, t=table: write_csv(f / "labels.csv", t), ground.project)
    for column in LABELS[0]:
        without = [{key: value for key, value in row.items() if key != column} for row in LABELS]
        yield Case(
            f"no column {column}",
            CHECK,
            Refused(f"no column {column}"),
            lambda f, t=without: write_csv(f / "labels.csv", t),
            ground.project,
        )
        double = pa.table([[row[name] for row in LABELS] for name in [*LABELS[0], column]], [*LABELS[0], column])
        yield case_of(
            ground,
            f"{column} twice",
            Refused(f"the column {column} is there twice"),
            {"l.parquet": as_parquet(double)},
            data__labels="l.parquet",
        )
        for kind, value in (("float", 1.5), ("list", ["1"]), ("bytes", b"\xff"), ("bool", True)):
            odd = {name: [value if name == column else row[name] for row in LABELS] for name in LABELS[0]}
            yield case_of(
                ground,
                f"{column} {kind}",
                Refused(f"column {column} holds"),
                {"l.parquet": as_parquet(odd)},
                data__labels="l.parquet",
            )
    kinds = {
        "parquet": as_parquet(pa.Table.from_pylist(LABELS)),
        "csv": as_csv(**{k: [r[k] for r in LABELS] for k in LABELS[0]}),
        "jsonl": as_jsonl(LABELS),
    }
    for kind, good in kinds.items():
        for what, change in BYTES.items():
            yield case_of(
                ground, f"{kind} {what}", Handled("data.labels"), {f"l.{kind}": change(good)}, data__labels=f"l.{kind}"
            )


TASK = TASKS["tasks"][0]
TASK_FILES: dict[str, tuple[Any, str]] = {
    "no task": ({"tasks": []}, "there is no task in it"),
    "nothing": ("", "there is no task in it"),
    "a list": ([TASK], "must be a mapping"),
    "unknown key": ({"tasks": [TASK | {"questoin": "x"}]}, "Did you mean 'question'?"),
    "no id": ({"tasks": [{"question": "x"}]}, "needs 'id'"),
    "an id twice": ({"tasks": [TASK, TASK]}, "id 'fever' given twice"),
    "an id that leaves": ({"tasks": [TASK | {"id": "../x"}]}, "id"),
    "another kind": ({"tasks": [TASK | {"kind": "ordinal"}]}, "kind"),
    "three options": ({"tasks": [TASK | {"options": ["1", "0", "2"]}]}, "a binary task cannot have 3 options"),
    "one option": ({"tasks": [TASK | {"options": ["1"], "verbalizers": {}}]}, "cannot have 1 options"),
    "equal options": ({"tasks": [TASK | {"options": ["1", "1"]}]}, "must be distinct and not empty"),
    "an empty option": ({"tasks": [TASK | {"options": ["1", " "]}]}, "must be distinct and not empty"),
    "a long option": ({"tasks": [TASK | {"options": ["1", CANARY * 20]}]}, "one has over 100 characters"),
    "numbers": ({"tasks": [TASK | {"options": [1, 0]}]}, "must be a string"),
    "equal answers": ({"tasks": [TASK | {"verbalizers": {"1": "sì", "0": "sì"}}]}, "two options have the same answer"),
    "an empty answer": ({"tasks": [TASK | {"verbalizers": {"1": "", "0": "no"}}]}, "an answer is empty"),
    "a verbalizer of nothing": ({"tasks": [TASK | {"verbalizers": {"2": "x"}}]}, "'2' is not an option"),
    "an empty question": ({"tasks": [TASK | {"question": " "}]}, "question"),
    "a place of nothing": ({"tasks": [TASK | {"question": "{what}?"}]}, "nothing fills {what}"),
    "multilabel without label": (
        {"tasks": [TASK | {"kind": "multilabel", "question": "x", "verbalizers": {}}]},
        "must hold {label}",
    ),
    "a bad pattern": ({"patterns": [{"match": "("}], "tasks": [TASK]}, "not a regular expression"),
    "no such table": ({"from_table": "nowhere.csv"}, "nowhere.csv"),
    "an endless question": ({"tasks": [TASK | {"question": "febbre? " * 300}]}, "leaves no room for a note"),
    "spans of nothing": ({"tasks": [TASK | {"spans": ["X"]}]}, "fever"),
}
TASK_TABLE = {"task_id": ["fever"], "kind": ["binary"], "description": ["x"], "class_counts": ['{"1": 3, "0": 4}']}
TASK_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "no JSON": ({"class_counts": [CANARY]}, "class_counts must be JSON"),
    "a list": ({"class_counts": ["[1]"]}, "class_counts must be JSON"),
    "deep": ({"class_counts": ["[" * 100_000]}, "class_counts must be JSON"),
    "null": ({"class_counts": [None]}, "class_counts must be JSON"),
    "notes as labels": ({"class_counts": [json.dumps({CANARY * 20: 1, "x": 1})]}, "one has over 100 characters"),
    "another kind": ({"kind": [CANARY]}, "kind must be"),
    "null id": ({"task_id": [None]}, "task_id must match"),
    "an id that leaves": ({"task_id": ["../x"]}, "task_id must match"),
    "numbers in a text": ({"description": [1.5]}, "column description holds"),
}


def tasks(ground: Ground) -> Iterator[Case]:
    """Files of tasks, and tables of tasks."""
    for name, (content, place) in TASK_FILES.items():
        text = content if isinstance(content, str) else json.dumps(content)  # is YAML, too
        yield case_of(
            ground, name, Refused(place) if name != "spans of nothing" else Handled(), {"tasks.yaml": text.encode()}
        )
    for name, (change, place) in TASK_TABLES.items():
        table = as_parquet(pa.table(TASK_TABLE | change))
        yield case_of(ground, f"table, {name}", Refused(place), {"t.parquet": table}, data__tasks="t.parquet")
    for what, change in BYTES.items():
        good = (ground.project / "tasks.yaml").read_bytes()
        yield case_of(ground, f"yaml {what}", Handled(), {"tasks.yaml": change(good)})
        yield case_of(
            ground,
            f"parquet {what}",
            Handled("data.tasks"),
            {"t.parquet": change(as_parquet(TASK_TABLE))},
            data__tasks="t.parquet",
        )
    for column in TASK_TABLE:
        rest = {key: value for key, value in TASK_TABLE.items() if key != column}
        yield case_of(
            ground,
            f"table without {column}",
            Refused(f"no column {column}"),
            {"t.parquet": as_parquet(rest)},
            data__tasks="t.parquet",
        )
