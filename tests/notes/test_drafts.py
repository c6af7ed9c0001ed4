"""Drafts of tasks: ids that can be folders, the positive option first, YAML that reads back."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.notes import drafts
from raypipe.notes.tasks import load_tasks


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (["0", "1"], "1"), (["no", "sì"], "sì"), (["NO", "YES"], "YES"), (["n", "y"], "y"), (["false", "true"], "true"),
        (["assente", "presente"], "presente"), (["negative", "positive"], "positive"), (["0.0", "1.0"], "1.0"),
    ],
)  # fmt: skip
def test_the_positive_option_comes_first(options: list[str], first: str) -> None:
    assert drafts.draft("c", options, 1).options[0] == first
    assert drafts.draft("c", options[::-1], 1).options[0] == first


def test_ids_are_names_of_folders_and_distinct() -> None:
    ids: list[str] = []
    for name in ("Febbre > 38 °C?", "febbre_38_c", "Età", "???", "!!!", "x" * 200):
        ids.append(drafts.draft(name, ["0", "1"], 1, ids).id)
    assert ids[:5] == ["febbre_38_c", "febbre_38_c_2", "eta", "task", "task_2"]
    assert all(map(drafts.is_id, ids))


@pytest.mark.parametrize("name", ["No", "On", "Null", "123", "1_000", "1e3", "true", "~"])
def test_an_id_that_yaml_takes_for_something_else_reads_back(name: str, tmp_path: Path) -> None:
    drafted = drafts.draft(name, ["0", "1"], 1)
    (tmp_path / "t.yaml").write_text(f"tasks:\n{drafted.entry(('sì', 'no'))}\n")
    (task,) = load_tasks(str(tmp_path / "t.yaml"))
    assert task.id == drafted.id


def test_entries_read_back_as_the_tasks_they_are(tmp_path: Path) -> None:
    odd = ['it\'s: "odd" #1', "yes", "no"]
    drafted = [
        drafts.draft("Febbre?", ["0", "1"], 1),
        drafts.draft("Esito: è?", odd, 1),
        drafts.draft("Code", "012", 1),
        drafts.draft("Sesso", "MF", 1),
    ]
    (tmp_path / "t.yaml").write_text("tasks:\n" + "\n".join(one.entry(("sì", "no")) for one in drafted) + "\n")
    fever, outcome, code, sex = load_tasks(str(tmp_path / "t.yaml"))
    assert (fever.question, fever.options, fever.answers) == ("Febbre?", ("1", "0"), ("sì", "no"))
    assert (outcome.kind, outcome.options, outcome.answers) == ("multiclass", tuple(sorted(odd)), tuple(sorted(odd)))
    assert code.answers == ("0", "1", "2")
    assert sex.answers == sex.options, "neither of two codes is a yes"
    assert "what do these codes mean?" in drafted[-1].entry(("sì", "no"))


def test_tasks_of_a_table_with_a_row_per_task_and_note() -> None:
    labels = pa.table({"what": ["a", "a", "b", "b", "b"], "value": ["1", "0", "x", "y", None]})
    first, second = drafts.of_long_table(labels)
    assert (first.id, first.options, first.n_rows) == ("a", ("1", "0"), 2)
    assert (second.id, set(second.options), second.n_rows) == ("b", {"x", "y"}, 2)
