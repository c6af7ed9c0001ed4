"""What annotation tools export comes back as the column that `data.columns.spans` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raypipe import rows
from raypipe.errors import InputError
from raypipe.notes import annotation_tools
from raypipe.notes.annotation_tools import Annotated
from raypipe.notes.deciding import read_deciding
from raypipe.notes.tasks import Task
from raypipe.settings.config import Columns, Data

TEXT = "Febbre alta 🙂\nné tosse"  # an emoji and a line's end before the last word
NOTES = [Annotated("n1", TEXT, [("febbre", 0, 6), ("tosse", 17, 22)]), Annotated("n2", "Nulla.", [])]


def _submitted(task: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As Label Studio exports a task whose predictions an annotator took over."""
    result = task["predictions"][0]["result"]
    for region in result:
        region["value"]["text"] = region["value"]["text"].replace("\n", "\\n")
    annotation = {"id": 1, "completed_by": 1, "result": result, "was_cancelled": False, "ground_truth": False}
    return {"id": 7, **task, "annotations": [annotation | changes], "predictions": []}


def _exported(tool: annotation_tools.Tool, path: Path) -> Path:
    """What comes back of a file that raypipe wrote."""
    assert annotation_tools.write(NOTES, tool, path, "a test") == (2, 2)
    if tool == "label-studio":
        path.write_text(json.dumps([_submitted(task) for task in json.loads(path.read_text())]))
    else:  # doccano adds a number and comments
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps({"id": i, **line, "Comments": []}) for i, line in enumerate(lines)))
    return path


@pytest.mark.parametrize("tool", ["label-studio", "doccano"])
def test_spans_come_back_and_say_which_words_decide(tool: annotation_tools.Tool, tmp_path: Path) -> None:
    table, n_without = annotation_tools.read(_exported(tool, tmp_path / "file"))
    assert n_without == 0
    assert table.to_pylist()[0] == {
        "note_id": "n1",
        "text": TEXT,
        "spans": json.dumps([["febbre", 0, 6], ["tosse", 17, 22]]),
    }
    rows.write(table, tmp_path / "notes.parquet")
    data = Data(notes=str(tmp_path / "notes.parquet"), columns=Columns(spans="spans"))
    task = Task("t", "Tosse?", "categorical", ("a", "b"), ("a", "b"), spans=("tosse",))
    assert read_deciding(data, [task]).to_pylist() == [{"note_id": "n1", "task_id": "t", "start": 17, "end": 22}]


def test_entities_of_a_doccano_project_with_relations(tmp_path: Path) -> None:
    entity = {"id": 3, "label": "febbre", "start_offset": 0, "end_offset": 6}
    line = {"id": 1, "text": TEXT, "entities": [entity], "relations": [], "note_id": "n1"}
    (tmp_path / "file").write_text(json.dumps(line))
    table, _ = annotation_tools.read(tmp_path / "file")
    assert json.loads(table["spans"][0].as_py()) == [["febbre", 0, 6]]


def test_a_task_that_nobody_annotated_is_no_note_without_spans(tmp_path: Path) -> None:
    annotation_tools.write(NOTES, "label-studio", tmp_path / "file", "a test")
    first, second = json.loads((tmp_path / "file").read_text())
    (tmp_path / "file").write_text(json.dumps([_submitted(first), _submitted(second, was_cancelled=True)]))
    table, n_without = annotation_tools.read(tmp_path / "file")
    assert (table["note_id"].to_pylist(), n_without) == (["n1"], 1)


def test_every_bad_record_is_a_line_that_quotes_no_text(tmp_path: Path) -> None:
    good = {"text": TEXT, "note_id": "n1", "label": []}
    moved = _submitted({"data": {"text": TEXT, "note_id": "n2"}, "predictions": [{"result": []}]})
    value = {"start": 18, "end": 22, "text": "tosse", "labels": ["t"]}  # as counted in UTF-16
    moved["annotations"][0]["result"] = [{"type": "labels", "value": value}]
    twice = moved | {"annotations": [{"result": []}, {"result": []}]}
    records: list[Any] = [
        good,
        good,
        {"note_id": "n3", "label": []},
        {"text": TEXT, "label": []},
        good | {"label": [[0, 99, "t"]]},
        good | {"label": ["t"]},
        moved,
        twice,
        7,
    ]
    (tmp_path / "file").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(InputError) as error:
        annotation_tools.read(tmp_path / "file")
    said = [(p.where.rpartition(" ")[2], p.what) for p in error.value.problems]
    expected = {
        "2": "earlier record",
        "3": "has no text",
        "4": "has no note_id",
        "5": "not of its text",
        "6": "not of its text",
        "7": "quotes other words",
        "8": "has 2 annotations",
        "9": "has no text",
    }
    assert [number for number, _ in said] == list(expected)
    assert all(part in what for (_, what), part in zip(said, expected.values(), strict=True))
    assert "tosse" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[1", "\ufeff{}"])
def test_another_file_is_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(InputError):
        annotation_tools.read(tmp_path / "file")
