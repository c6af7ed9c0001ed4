"""Relevance for other tools: the table and the arrays say the same as the compact rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import raypipe
from raypipe import rows
from raypipe.errors import InputError
from raypipe.findings import attributions
from raypipe.runs.folder import StepFolder

TEXT = "Febbre alta, né tosse"
WORDS = [(0, 6), (7, 11), (13, 15), (16, 21)]
RELEVANCE_QKW = np.arange(16, dtype=np.float32).reshape(2, 2, 4) - 3  # float16 holds these exactly


def masked_row(note_id: str, **changes: object) -> dict[str, object]:
    """A row of rows.MASKED: two tasks, two layers, four words; one arm hides a word."""
    plan = {"arm": "a", "task_id": "tosse", "draw": 0, "start": [16], "end": [21], "kind": [0]}
    row = {
        "note_id": note_id,
        "text": TEXT,
        "plans": [{**plan, "n_masked": 1, "n_eligible": 4}],
        "task_id": ["febbre", "tosse"],
        "predicted": ["no", "sì"],
        "margin": [0.5, 1.5],
        "word_start": [start for start, _ in WORDS],
        "word_end": [end for _, end in WORDS],
        "layers": [0, 3],
        "relevance": RELEVANCE_QKW.astype(np.float16).ravel(),
    }
    return row | changes


def finished_step(run: Path, notes: list[dict[str, object]], name: str = "mask", schema: object = rows.MASKED) -> Path:
    """A finished step of a run's folder, in two files."""
    step = StepFolder(run / name, {"of": name}).open()
    (step.path / "data").mkdir()
    for number, part in enumerate((notes[:1], notes[1:])):
        rows.write(rows.table(part, schema), step.path / "data" / f"{number}.parquet")
    step.finish()
    return step.path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """n1 and n3 have relevance; n2 failed."""
    error = dict.fromkeys(rows.MASKED.names) | {"note_id": "n2", "error": "E_EMPTY"}
    finished_step(tmp_path / "run", [masked_row("n1"), error, masked_row("n3")])
    return tmp_path / "run"


def test_arrays_have_the_shapes_that_their_names_say(run: Path) -> None:
    notes = list(raypipe.attributions(run))
    assert [note.note_id for note in notes] == ["n1", "n3"]
    note = notes[0]
    assert (note.task_ids, note.layers, note.predicted) == (("febbre", "tosse"), (0, 3), ("no", "sì"))
    assert note.words_W2.tolist() == [list(word) for word in WORDS]
    assert note.relevance_QKW.dtype == np.float32
    np.testing.assert_array_equal(note.relevance_QKW, RELEVANCE_QKW)
    np.testing.assert_array_equal(note.margin_Q, [0.5, 1.5])
    assert note.text is None, "only where it was asked for"
    assert next(raypipe.attributions(run / "mask", with_text=True)).text == TEXT


def test_the_table_is_the_rows_unfolded(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributions, "ROWS_PER_GROUP", 16)  # one note is a part
    out = tmp_path / "relevance.parquet"
    assert attributions.export(run, out) == (2, 32)
    assert pq.read_metadata(out).num_row_groups == 2
    table = pd.read_parquet(out)
    assert list(table) == ["note_id", "task_id", "layer", "word", "start", "end", "relevance"]
    assert not table.isna().any().any()
    first = table[table["note_id"] == "n1"]
    got = first.set_index(["task_id", "layer", "word"])["relevance"]
    for q, task in enumerate(("febbre", "tosse")):
        for k, layer in enumerate((0, 3)):
            assert [got[task, layer, w] for w in range(4)] == RELEVANCE_QKW[q, k].tolist()
    assert [TEXT[s:e] for s, e in zip(first["start"][:4], first["end"][:4], strict=True)] == TEXT.replace(
        ",", ""
    ).split()
    assert TEXT.encode()[:6] not in out.read_bytes()


def test_words_are_written_on_request(run: Path, tmp_path: Path) -> None:
    attributions.export(run, tmp_path / "words.parquet", with_text=True)
    table = pq.read_table(tmp_path / "words.parquet")
    assert table.schema == rows.ATTRIBUTIONS
    assert set(table["text"].to_pylist()) == {"Febbre", "alta", "né", "tosse"}
    assert [row["text"] for row in table.to_pylist()] == [TEXT[r["start"] : r["end"]] for r in table.to_pylist()]


def test_of_a_run_stored_relevance_is_read_and_text_from_the_masks(run: Path) -> None:
    row = {name: masked_row("stored").get(name) for name in rows.ATTRIBUTED.names}
    finished_step(run, [row, row], "attribute", rows.ATTRIBUTED)
    assert next(raypipe.attributions(run)).note_id == "stored"
    assert next(raypipe.attributions(run, with_text=True)).note_id == "n1"
    with pytest.raises(InputError, match="has no text"):
        raypipe.attributions(run / "attribute", with_text=True)


def test_what_cannot_be_read_is_a_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished relevance; run `raypipe attribute`"):
        raypipe.attributions(tmp_path)
    with pytest.raises(InputError, match="is there already"):
        attributions.export(run, run / "mask" / "manifest.json")
    none = finished_step(tmp_path / "other", [masked_row("n1", relevance=None)] * 2)
    with pytest.raises(InputError, match="no note has relevance"):
        attributions.export(none, tmp_path / "none.parquet")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [], "nothing half-written stays"
    (run / "mask" / "data" / "0.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):  # by the call, not by the first note
        raypipe.attributions(run)
