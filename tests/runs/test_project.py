"""`raypipe init`: from a user's own table to a project that passes its check, without a text or a label printed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from raypipe import cli
from raypipe.errors import InputError
from raypipe.notes.tasks import load_tasks
from raypipe.runs import project
from raypipe.runs.checking.check import check
from raypipe.runs.project import CONFIG, SCHEMA, TASKS, Named, propose, write
from raypipe.settings import configfile
from tests.exports import wide_export


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return wide_export(tmp_path / "export.csv")


def test_a_wide_export_becomes_a_project_that_passes_its_check(export: Path, tmp_path: Path) -> None:
    write(tmp_path / "p", propose(str(export), None, Named(answers=("sì", "no"))), None, ("sì", "no"))
    config = configfile.load(tmp_path / "p" / CONFIG)
    assert config.data.columns.group_id == "Codice paziente"
    report = check(config)
    assert [task.id for task in report.tasks] == ["febbre_38", "dispnea"]
    assert report.tasks[0].answers == ("sì", "no")
    assert (report.n_notes, report.labels.num_rows) == (84, 120)
    assert set(report.labels["split"].to_pylist()) == {"train", "dev", "test"}
    assert config.runs == str(tmp_path / "p" / "runs")
    assert (tmp_path / "p" / SCHEMA).exists()


def test_neither_text_nor_label_is_printed(export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.init(tmp_path / "p", str(export))
    out = capsys.readouterr().out
    with export.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter=";"))[1:]
    words = {word for row in rows for word in row[3].split() if len(word) > 7}
    assert not [word for word in words if word in out]
    assert "SÌ" not in out
    assert "Codice paziente  its name says so" in out
    assert "raypipe makes one by patient" in out
    assert out.strip().splitlines()[-1].startswith("ok, 0 warnings; next: raypipe run --config")


def test_a_split_in_other_words_is_neither_a_label_nor_replaced(tmp_path: Path) -> None:
    lines = [f"n{i},nota numero {i} del paziente,{i % 2},{('training', 'validation')[i % 3 == 0]}" for i in range(30)]
    (tmp_path / "n.csv").write_text("id,testo,febbre,parte\n" + "\n".join(lines))
    with pytest.raises(InputError, match="--split: 'parte' seems to hold the split: call its parts train, dev and"):
        propose(str(tmp_path / "n.csv"), None, Named())
    assert [task.id for task in propose(str(tmp_path / "n.csv"), None, Named(labels=("febbre",))).tasks] == ["febbre"]


def test_what_the_user_names_is_taken(export: Path) -> None:
    said = Named(id="Nr. referto", text="Referto PS", group="Nr. referto", labels=("Dispnea",))
    proposal = propose(str(export), None, said)
    assert ([task.id for task in proposal.tasks], proposal.group) == (["dispnea"], "Nr. referto")
    with pytest.raises(InputError, match="--label: 'Età' cannot be a label: more than 10 different values"):
        propose(str(export), None, Named(labels=("Età",)))
    with pytest.raises(InputError, match="--label: there is no column 'Dispnoea'"):
        propose(str(export), None, Named(labels=("Dispnoea",)))


@pytest.mark.parametrize("split", [True, False])
def test_labels_in_a_table_of_their_own_with_a_row_per_task_and_note(tmp_path: Path, split: bool) -> None:
    lines = [["doc", "body", "patient"]]
    lines += [[f"d{i}", f"A note of some length and number {i}.", f"p{i // 2}"] for i in range(60)]
    (tmp_path / "n.csv").write_text("\n".join(",".join(line) for line in lines))
    labels = [["report", "item", "value", *(["part"] if split else [])]]
    for i in range(60):
        part = ("train", "train", "dev", "dev", "test", "test")[i % 6]
        for item in ("fever", "cough", "bad name!"):
            labels.append([f"d{i}", item, "01"[(i // 6) % 2], *([part] if split else [])])
    (tmp_path / "l.csv").write_text("\n".join(",".join(line) for line in labels))
    proposal = propose(str(tmp_path / "n.csv"), str(tmp_path / "l.csv"), Named())
    columns = proposal.label_columns
    assert (columns.note_id, columns.task_id, columns.label) == ("report", "item", "value")
    assert columns.split == ("part" if split else None)
    assert [task.id for task in proposal.tasks] == ["cough", "fever"]
    why = "1 of its values are no names of tasks (letters, digits, dots, dashes)"
    assert ("left out", "item", why) in proposal.said
    assert "bad name" not in str(proposal)
    write(tmp_path / "p", proposal, None, ("yes", "no"))
    assert check(configfile.load(tmp_path / "p" / CONFIG)).labels.num_rows == 120


def test_tables_that_use_the_names_of_raypipe_itself(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("note_id,text\n" + "\n".join(f"d{i},A note of some length {i}." for i in range(40)))
    lines = [f"fever,d{i},{i % 2},{('train', 'dev', 'test')[i // 4 % 3]}" for i in range(40)]
    (tmp_path / "l.csv").write_text("task_id,note_id,label,split\n" + "\n".join(lines))
    said = Named(task_column="task_id", label_column="label", labels_id="note_id")
    write(tmp_path / "p", propose(str(tmp_path / "n.csv"), str(tmp_path / "l.csv"), said), None, ("yes", "no"))
    assert check(configfile.load(tmp_path / "p" / CONFIG)).labels.num_rows == 40


def test_which_column_is_the_task_is_not_guessed_among_three(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("id,body\n" + "\n".join(f"d{i},A note of some length {i}." for i in range(12)))
    lines = [f"d{i},{item},{i % 2},{'ab'[i % 2]}" for i in range(12) for item in ("fever", "cough")]
    (tmp_path / "l.csv").write_text("id,item,value,who\n" + "\n".join(lines))
    tables = str(tmp_path / "n.csv"), str(tmp_path / "l.csv")
    for named in (Named(), Named(task_column="item")):
        with pytest.raises(InputError, match="which column is the task, which the label"):
            propose(*tables, named)
    columns = propose(*tables, Named(task_column="item", label_column="value")).label_columns
    assert (columns.task_id, columns.label) == ("item", "value")


def test_labels_in_a_wide_table_of_their_own(export: Path, tmp_path: Path) -> None:
    rows = [["id", "smokes"], *([f"R{i:04d}", "10"[i % 2]] for i in range(50))]
    (tmp_path / "l.csv").write_text("\n".join(",".join(row) for row in rows))
    proposal = propose(str(export), str(tmp_path / "l.csv"), Named())
    assert (proposal.label_columns.note_id, proposal.label_columns.task_id) == ("id", None)
    assert [task.id for task in proposal.tasks] == ["smokes"]
    (tmp_path / "other.csv").write_text("id,smokes\n" + "\n".join(f"X{i},1" for i in range(9)))
    with pytest.raises(InputError, match="--labels-id: no column of the labels holds ids of the notes"):
        propose(str(export), str(tmp_path / "other.csv"), Named())


def _without_ids(export: Path, encoding: str) -> Path:
    """The same table as Excel writes it, without the column of ids."""
    with export.open(newline="", encoding="utf-8") as file:
        rows = [row[1:] for row in csv.reader(file, delimiter=";")]
    with (path := export.with_name("excel.csv")).open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=";").writerows(rows)
    return path


def test_a_table_of_excel_without_ids_is_copied_where_the_user_says_so(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    excel, folder = _without_ids(export, "cp1252"), tmp_path / "p"
    with pytest.raises(InputError, match="names of columns are not UTF-8"):
        cli.init(folder, str(excel))
    with pytest.raises(InputError, match="let `--number-rows` make a copy"):
        cli.init(folder, str(excel), encoding="cp1252")
    excel.write_bytes(excel.read_bytes().replace("Età".encode("cp1252"), b"Eta"))
    with pytest.raises(InputError, match=r"(?s)cells of 'Referto PS' are not UTF-8.*let `--number-rows`"):
        cli.init(folder, str(excel))
    assert not folder.exists(), "nothing stays of a copy that is of no use"
    cli.init(folder, str(excel), encoding="cp1252", number_rows=True)
    assert f"wrote {folder / 'notes.csv'} (holds note text), " in capsys.readouterr().out
    config = configfile.load(folder / CONFIG)
    assert config.data.notes == config.data.labels == str(folder / "notes.csv")
    assert config.data.columns.note_id == "row_number"
    report = check(config)
    assert (report.n_notes, report.labels.num_rows) == (84, 120)
    assert [task.options for task in report.tasks] == [("1", "0"), ("SÌ", "NO")]
    with pytest.raises(InputError, match="is there already: nothing was written"):
        cli.init(folder, str(excel), encoding="cp1252", number_rows=True)
    assert (folder / "notes.csv").exists(), "of the project that is there"


def test_labels_of_their_own_are_copied_too_but_never_meet_numbers(export: Path, tmp_path: Path) -> None:
    rows = [["id", "fuma"], *([f"R{i:04d}", ("sì", "no")[i % 2]] for i in range(50))]
    labels = tmp_path / "l.csv"
    labels.write_bytes("\n".join(",".join(row) for row in rows).encode("cp1252"))
    notes = tmp_path / "n.csv"
    notes.write_bytes(export.read_text(encoding="utf-8").encode("cp1252"))
    with pytest.raises(InputError, match="--number-rows: labels of a table of their own need the ids"):
        cli.init(tmp_path / "p", str(notes), str(labels), encoding="cp1252", number_rows=True)
    with pytest.raises(InputError, match="--number-rows, --id: one of them"):
        cli.init(tmp_path / "p", str(notes), id_="id", number_rows=True)
    cli.init(tmp_path / "p", str(notes), str(labels), encoding="cp1252")
    config = configfile.load(tmp_path / "p" / CONFIG)
    assert config.data.labels == str(tmp_path / "p" / "labels.csv")
    assert check(config).tasks[0].options == ("sì", "no")


def test_a_copy_never_takes_the_place_of_a_users_table(export: Path, tmp_path: Path) -> None:
    own = tmp_path / "notes.csv"
    own.write_bytes(export.read_text(encoding="utf-8").encode("cp1252"))
    before = own.read_bytes()
    for notes in (own, export):
        with pytest.raises(InputError, match=r"notes\.csv: is there already: nothing was written"):
            cli.init(tmp_path, str(notes), encoding="cp1252")
    assert own.read_bytes() == before


def test_a_project_is_never_overwritten(export: Path, tmp_path: Path) -> None:
    proposal = propose(str(export), None, Named())
    write(tmp_path / "p", proposal, None, ("yes", "no"))
    before = (tmp_path / "p" / TASKS).read_text()
    (tmp_path / "p" / CONFIG).unlink()
    with pytest.raises(InputError, match="is there already: nothing was written"):
        write(tmp_path / "p", proposal, None, ("yes", "no"))
    assert (tmp_path / "p" / TASKS).read_text() == before
    assert not (tmp_path / "p" / CONFIG).exists()


def test_a_model_of_the_users_own(export: Path, tmp_path: Path) -> None:
    write(tmp_path / "p", propose(str(export), None, Named()), "/models/absent", ("yes", "no"))
    config = configfile.load(tmp_path / "p" / CONFIG)
    assert (config.model.path, config.pretrain) == ("/models/absent", None)
    assert config.train.lora is not None
    assert config.finetune.lora is not None
    assert config.finetune.epochs > 1, "one pass over a few labels teaches nothing"
    assert load_tasks(str(config.data.tasks))
    assert config.prompt.max_tokens == project.MAX_TOKENS
