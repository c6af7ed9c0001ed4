"""Placeholders: what is marked is gone from every column that is read, and spans and tags still mark their words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.notes.annotated_spans import of_tags, parsed
from raypipe.notes.deciding import is_annotated
from raypipe.notes.files import iter_notes
from raypipe.notes.placeholders import replaced
from raypipe.notes.tasks import Task
from raypipe.settings.config import Columns, Data

FEVER = Task("fever", "binary", "Fever?", ("1", "0"), ("yes", "no"))
KINDS = {"date": "[DATA]", "phone": "[TEL]"}
TEXT = "Visto il 12/03/2021 per  febbre alta; tel. 347 1234567, poi tosse."


def read(folder: Path, data: dict[str, Any], **columns: list[str | None]) -> dict[str, Any]:
    path = folder / "notes.parquet"
    pq.write_table(pa.table({"note_id": [f"n{i}" for i in range(len(columns["text"]))], **columns}), path)
    names = Columns(**{name: name for name in columns if name != "text"})
    settings = Data(notes=str(path), columns=names, **data)
    return pa.concat_tables(iter_notes(settings, ["note_id", "text", "error", *names.model_fields_set])).to_pydict()


def test_identifiers_are_replaced_and_spans_and_tags_move(tmp_path: Path) -> None:
    words = ["febbre alta", "347 1234567", "tosse"]
    spans = [["F", TEXT.index(word), TEXT.index(word) + len(word)] for word in words]
    tags = ["O", "O", "B-D", "O", "B-F", "I-F", "O", "B-T", "I-T", "O", "B-F"]
    notes = read(tmp_path, {"placeholders": KINDS}, text=[TEXT], spans=[json.dumps(spans)], tags=[" ".join(tags)])
    (text,) = notes["text"]
    assert text == "Visto il [DATA] per  febbre alta; tel. [TEL], poi tosse."
    assert [text[a:b] for _, a, b in parsed(notes["spans"][0], len(text))] == ["febbre alta", "[TEL]", "tosse"]
    of_tokens = {text[a:b] for _, a, b in of_tags(notes["tags"][0].split(), text)}
    assert of_tokens == {"[DATA]", "febbre alta;", "[TEL],", "tosse."}


def test_annotated_spans_are_replaced_also_where_the_column_is_not_asked_for(tmp_path: Path) -> None:
    spans = json.dumps([["PATIENT", 0, 6], ["F", 7, 13]])
    path = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"note_id": ["a"], "text": ["Perù\u0301x febbre"], "s": [spans]}), path)
    data = Data(notes=str(path), columns=Columns(spans="s"), placeholders={"PATIENT": "[PAZ]"})
    (table,) = [t for t in iter_notes(data, ["note_id", "text", "error"]) if t.num_rows]
    assert table["text"].to_pylist() == ["[PAZ] febbre"]
    assert table.column_names == ["note_id", "text", "error"]


def test_a_note_whose_marks_cannot_be_read_is_a_dead_letter(tmp_path: Path) -> None:
    cells = ["no json", None]
    notes = read(tmp_path, {"placeholders": {"PATIENT": "[PAZ]"}}, text=[TEXT, TEXT], spans=cells)
    assert notes["error"] == ["E_SPANS", None]
    assert notes["text"] == [None, TEXT]
    notes = read(tmp_path, {"placeholders": KINDS}, text=[TEXT], spans=["no json"])
    assert notes["error"] == ["E_SPANS"], "an annotator may have marked a date there"
    notes = read(tmp_path, {}, text=[TEXT], spans=["no json"])
    assert (notes["error"], notes["spans"]) == ([None], ["no json"]), "nothing is replaced"


def test_marks_of_jsonl_may_be_lists_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    cells = [[["PATIENT", 0, 5]], 7, {"a": 1}, None, ""]
    lines = [{"note_id": str(i), "text": "Rossi tosse", "spans": cell} for i, cell in enumerate(cells)]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = Data(notes=str(tmp_path / "n.jsonl"), columns=Columns(spans="spans"), placeholders={"PATIENT": "[PAZ]"})
    notes = pa.concat_tables(iter_notes(data)).to_pydict()
    assert notes["error"] == [None, "E_SPANS", "E_SPANS", None, None]
    assert notes["text"] == ["[PAZ] tosse", None, None, "Rossi tosse", "Rossi tosse"]
    assert not is_annotated(data, [FEVER]), "they are for placeholders alone"
    assert is_annotated(data, [replace(FEVER, spans=("F",))])
    assert is_annotated(Data(columns=Columns(spans="spans")), [FEVER]), "no task names the types, which is told"


def test_an_annotated_kind_that_has_a_pattern_is_replaced_in_every_reading(tmp_path: Path) -> None:
    text = "Visto da Zanetti oggi per febbre alta."
    path = tmp_path / "notes.parquet"
    pq.write_table(pa.table({"note_id": ["a"], "text": [text], "s": [json.dumps([["name", 9, 16]])]}), path)
    columns, placeholders = Columns(spans="s"), {"name": "[NOME]"}
    notes = Data(notes=str(path), columns=columns, placeholders=placeholders)
    pretraining = Data(notes="other", pretraining=str(path), columns=columns, placeholders=placeholders)
    for data in (notes, pretraining.for_pretraining):
        for names in (["text"], ["text", "spans"]):
            table = pa.concat_tables(iter_notes(data, ["note_id", *names]))
            assert table["text"].to_pylist() == ["Visto da [NOME] oggi per febbre alta."]


def test_an_expression_without_end_is_a_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.guard.limits.LIMIT_S", 0.05)
    own = {"identifiers": {"x": r"(a|aa)+$"}, "placeholders": {"x": "[X]"}}
    notes = read(tmp_path, own, text=["a" * 60 + "!", "due parole"])
    assert notes["error"] == ["E_PATTERN", None]


def test_without_the_setting_nothing_changes(tmp_path: Path) -> None:
    assert read(tmp_path, {}, text=[TEXT])["text"] == [TEXT]


@pytest.mark.parametrize("mark", ["", "two words", "[]"])
def test_a_placeholder_is_one_word(mark: str) -> None:
    with pytest.raises(ValidationError):
        Data(placeholders={"date": mark})


@given(
    st.text(alphabet="ab .\n", min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 6)), max_size=4),
)
def test_what_is_kept_stays_the_same_text(text: str, marks: list[tuple[int, int]]) -> None:
    spans = [("k", start, min(start + n, len(text))) for start, n in marks if start < len(text)]
    now = replaced(text, spans, {"k": "[K]"})
    marked = {i for _, start, end in spans for i in range(start, end)}
    for i, character in enumerate(text):
        a, b = now.moved(i, i + 1)
        assert now.text[a:b] == ("[K]" if i in marked else character)
