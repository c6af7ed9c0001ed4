"""What the columns of an unknown table are taken for."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.errors import InputError
from raypipe.notes import columns
from tests.exports import wide_export


def _names(path: Path) -> tuple[str, ...]:
    seen = columns.look(str(path), "--notes")
    text, _ = columns.text_of(seen)
    note_id, _ = columns.id_of([column for column in seen if column is not text])
    group, _ = columns.group_of([column for column in seen if column not in (text, note_id)])
    return text.name, note_id.name, group.name if group else "-"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_text_id_and_patient_of_an_export(tmp_path: Path, delimiter: str) -> None:
    path = wide_export(tmp_path / "export.csv", delimiter)
    assert _names(path) == ("Referto PS", "Nr. referto", "Codice paziente")


def test_parquet_and_jsonl_are_looked_at_in_the_same_way(tmp_path: Path) -> None:
    rows = [{"key": i, "body": f"A note of some length, number {i}.", "subject": f"s{i // 2}"} for i in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "n.parquet")
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert _names(tmp_path / "n.parquet") == _names(tmp_path / "n.jsonl") == ("body", "key", "subject")


def test_a_column_of_row_numbers_without_a_name_is_left_out(tmp_path: Path) -> None:
    """As pandas writes a table."""
    path = wide_export(tmp_path / "export.csv", ",")
    first, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([f",{first}", *(f"{i},{row}" for i, row in enumerate(rows))]), encoding="utf-8")
    assert _names(path) == ("Referto PS", "Nr. referto", "Codice paziente")


def test_options_are_few_short_and_frequent_enough() -> None:
    def options(values: list[object]) -> list[str]:
        column = columns.Column("c")
        column.add(values)
        return column.options

    assert options(["1", "0", "", None] * 5) == ["0", "1"]
    assert options([1, 0] * 5) == ["0", "1"]
    assert options(["a"] * 100) == []
    assert options(["a"] * 100 + ["b"]) == [], "one row of a class teaches nothing"
    assert options([str(i) for i in range(11)] * 9) == [], "an age, not a label"
    assert options([1.0, 0.0] * 5) == [], "fractions are no labels"
    assert options(["x" * 41, "y" * 41] * 5) == [], "sentences are no labels"


def test_without_a_patient_by_name_none_is_guessed_but_hinted_at() -> None:
    column = columns.Column("ward code")
    column.add([f"w{i % 20}" for i in range(60)])
    group, why = columns.group_of([column])
    assert group is None
    assert "--group (perhaps ward code)" in why


@pytest.mark.parametrize(
    "patient", ["paziente", "ID_PAZ", "IDPAZ", "codpaz", "idpatient", "IDPAT", "pat_id", "codicefiscale"]
)
@pytest.mark.parametrize("other", ["patologia", "Patología", "pathology", "path", "spazio"])
def test_a_disease_is_no_patient(patient: str, other: str) -> None:
    both = [columns.Column(other), columns.Column(patient)]
    both[0].add([f"d{i % 12}" for i in range(60)])
    both[1].add([f"p{i % 30}" for i in range(60)])
    group, _ = columns.group_of(both)
    assert group is both[1]
    assert columns.group_of(both[:1])[0] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("n1," + "dispnea e febbre da tre giorni " * 9 + "\n",
         "the first line does not look like names of columns"),
        ("n1,dispnea da ieri,1\nn2,nega febbre,0\n", "the first line does not look like names of columns"),
        ("a,a\n1,2\n", "two columns have the same name"),
        ("a,b\n", "holds no row"),
    ],
)  # fmt: skip
def test_a_table_without_names_is_refused_and_not_quoted(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "n.csv").write_text(content)
    with pytest.raises(InputError) as error:
        columns.look(str(tmp_path / "n.csv"), "--notes")
    assert said in str(error.value)
    assert "dispnea" not in str(error.value)


def test_a_table_that_is_not_utf8_is_refused_with_the_way_out(tmp_path: Path) -> None:
    lines = [f"n{i},nota numero {i}, {'sì' if i % 10 == 0 else 'no'}" for i in range(100)]
    (tmp_path / "n.csv").write_bytes(("id,testo,esito\n" + "\n".join(lines)).encode("cp1252"))
    (problem,) = columns.not_utf8(columns.look(str(tmp_path / "n.csv"), "--notes"), "--notes")
    assert str(problem).startswith("--notes: 10 of 100 cells of 'esito' are not UTF-8: of a .csv, say how")
    assert "--encoding cp1252" in str(problem)
    (tmp_path / "n.csv").write_bytes("id,età\n1,2\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"names of columns are not UTF-8.*--encoding cp1252"):
        columns.look(str(tmp_path / "n.csv"), "--notes")
    rows = [b'{"id": "%d", "body": "%s"}' % (i, b"\xe8" if i == 7 else b"e") for i in range(100)]
    (tmp_path / "n.jsonl").write_bytes(b"\n".join(rows))
    seen = columns.look(str(tmp_path / "n.jsonl"), "--notes")
    assert [column.n_broken for column in seen] == [0, 1]
    assert columns.not_utf8(seen, "--notes") == [], "one broken note becomes a dead letter, and ends nothing"


def test_what_cannot_be_found_out_is_named_with_its_option() -> None:
    twice = columns.Column("id")
    twice.add(["a", "a"])
    with pytest.raises(InputError, match="--id: no column has a value of its own in every row"):
        columns.id_of([twice])
    with pytest.raises(InputError, match="--text: no column looks like notes"):
        columns.text_of([twice])
    with pytest.raises(InputError, match="--text: there is no column 'Id'"):
        columns.named([twice], "Id", "--text")


def test_a_split_is_known_by_its_values() -> None:
    fold, other = columns.Column("fold"), columns.Column("part")
    fold.add(["train", "dev", "test"])
    other.add(["training", "validation"])
    assert columns.split_of([other, fold]) is fold
    assert columns.split_of([other]) is None
    assert columns.like_a_split([fold]) is None
    assert columns.like_a_split([other]) is other
    smoking = columns.Column("smoker")
    smoking.add(["yes", "no", "test"])
    assert columns.like_a_split([smoking, columns.Column("empty")]) is None


def test_a_look_at_many_ids_takes_some_bytes_for_each() -> None:
    column, n = columns.Column("id"), 20_000
    tracemalloc.start()
    column.add(f"note-{i}" for i in range(n))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 16 * n
    assert column.is_unique
    other = columns.Column("note")
    other.add(f"note-{i}" for i in range(n - 10, n + 10) for _ in range(2))
    assert (other.n_distinct, other.n_in_common(column), other.is_unique) == (20, 10, False)
