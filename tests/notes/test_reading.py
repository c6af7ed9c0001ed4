"""Notes and labels as they should be: formats, columns, selections."""

import errno
import gzip
import json
import unicodedata
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.notes import cleaning, labels, storage
from raypipe.notes.columns import look
from raypipe.notes.corpus import Corpus
from raypipe.notes.files import iter_notes, kept_rows
from raypipe.notes.leakage import Guard
from raypipe.notes.reading import of_pretraining, read_unit, tables, units
from raypipe.notes.tasks import NO, YES, Task
from raypipe.runs import inputs
from raypipe.runs.checking.check import check
from raypipe.settings.config import Columns, Config, Data
from raypipe.stream.stages.hold_out import hold_out

NOTES = [("007", "Tosse e febbre."), ("7", 'Nega dolore,\n"riferisce" nausea'), ("é", "E\u0300 vigile 🙂")]


def read(data):
    return pa.concat_tables(iter_notes(data)).to_pylist()


def write(path, notes):
    """The same notes in the format that the path's ending names."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pq.write_table(pa.table({"note_id": [i for i, _ in notes], "text": [t for _, t in notes]}), path)
    if name.endswith(".jsonl"):
        text = "\n".join(json.dumps({"note_id": i, "text": t}) for i, t in notes)
    else:
        text = "\ufeffnote_id,text\r\n" + "".join('{},"{}"\r\n'.format(i, t.replace('"', '""')) for i, t in notes)
    return (gzip.open if path.name.endswith(".gz") else open)(path, "wb").write(text.encode())


@pytest.mark.parametrize("name", ["n.parquet", "n.jsonl", "n.jsonl.gz", "n.csv", "n.csv.gz"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    write(tmp_path / name, NOTES)
    expected = [
        {"note_id": i, "group_id": None, "text": unicodedata.normalize("NFC", t), "error": None} for i, t in NOTES
    ]
    assert read(Data(notes=str(tmp_path / name))) == expected
    for table in iter_notes(Data(notes=str(tmp_path / name))):
        assert table.schema == rows.NOTES


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["a.csv", "b.csv", "sub/c.csv"]),
        ("*.csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "sub/c.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("?.csv", ["a.csv", "b.csv"]),
        ("sub", ["sub/c.csv"]),
    ],
)
def test_file_folder_and_glob(tmp_path, pattern, names):
    (tmp_path / "sub").mkdir()
    for name in ("a.csv", "b.csv", "sub/c.csv", "_SUCCESS.csv", "README.md"):
        write(tmp_path / name, [(name, "testo")])
    found = [file.path.removeprefix(f"{tmp_path}/") for file in storage.find(str(tmp_path / pattern), "data.notes")]
    assert found == names


def test_uri_of_another_file_system():
    fsspec.filesystem("memory").pipe("/corpus/a.csv", b"note_id,text\n1,uno\n")
    fsspec.filesystem("memory").pipe("/corpus/b.csv", b"note_id,text\n2,due\n")
    for uri in ("memory://corpus", "memory://corpus/*.csv"):
        assert [row["text"] for row in read(Data(notes=uri))] == ["uno", "due"]


def test_configured_columns_integer_ids_and_tags(tmp_path):
    table = pa.table({"nosologico": [1, 2], "paziente": pa.array([5, None]), "testo": ["a", "b"], "bio": ["O", "B-X"]})
    pq.write_table(table, tmp_path / "n.parquet")
    columns = Columns(note_id="nosologico", group_id="paziente", text="testo", tags="bio")
    assert read(Data(notes=str(tmp_path), columns=columns)) == [
        {"note_id": "1", "group_id": "5", "text": "a", "error": None, "tags": "O"},
        {"note_id": "2", "group_id": None, "text": "b", "error": None, "tags": "B-X"},
    ]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_any_arrow_string(tmp_path, kind):
    pq.write_table(pa.table({"note_id": ["a", "b"], "text": pa.array(["x", "y"]).cast(kind)}), tmp_path / "n.parquet")
    assert [row["text"] for row in read(Data(notes=str(tmp_path)))] == ["x", "y"]


def test_first_of_a_repeated_id_is_kept_across_files_and_row_groups(tmp_path):
    table = pa.table({"note_id": ["a", "b", "a", "c"], "text": ["1", "2", "3", "4"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(pa.table({"note_id": ["c", "d"], "text": ["5", "6"]}), tmp_path / "b.parquet")
    data = Data(notes=str(tmp_path), on_duplicate_id="keep_first")
    assert [row["text"] for row in read(data)] == ["1", "2", "4", "6"]
    assert {i: mask.tolist() for i, mask in kept_rows(data, units(data)).items()} == {
        1: [False, True],
        2: [False, True],
    }


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_is_nfc_or_a_code_and_keeps_its_id(text):
    (row,) = cleaning.clean({"note_id": ["x"], "text": [text]}, rows.NOTES.names, 1000, "f", 0).to_pylist()
    assert row["note_id"] == "x"
    if row["error"] is None:
        assert row["text"] == unicodedata.normalize("NFC", text)
    else:
        assert (row["text"], row["error"] in ("E_UTF8", "E_EMPTY")) == (None, True)


# --- labels


def task(id="t", options=("1", "0"), part_of=None):
    return Task(id, "binary", "q", options, options, part_of)


def table(*rows_):
    return pa.Table.from_pylist([dict(zip(rows.LABELS.names, row, strict=True)) for row in rows_], schema=rows.LABELS)


def many(n=400, rare=0.02):
    rng = np.random.default_rng(0)
    splits = rng.choice(["train", "dev", "test"], n, p=[0.6, 0.2, 0.2])
    return table(*[
        (f"t{k}", f"n{i}", "1" if rng.random() < rare or (k, i) == (0, 0) else "0", splits[i])
        for k in range(3)
        for i in range(n)
    ])  # fmt: skip


def test_label_budgets_are_nested_and_hold_every_class():
    all_labels, before = many(), set()
    for budget in (8, 16, 32, 64):
        kept = labels.within_limits(all_labels, Data(max_labelled=budget, max_test=10))
        for task_id, of in labels.counts_of(kept).items():
            assert sum(split.get("train", 0) for split in of.values()) == budget
            assert sum(split.get("test", 0) for split in of.values()) == 10
            assert min(of[label].get("train", 0) for label in labels.counts_of(all_labels)[task_id]) >= 1
        train = {(r["task_id"], r["note_id"]) for r in kept.to_pylist() if r["split"] == "train"}
        assert before < train
        before = train
    assert labels.within_limits(all_labels, Data()) == all_labels


def test_budgets_do_not_depend_on_the_order_of_the_table():
    all_labels = many()
    shuffled = all_labels.take(np.random.default_rng(1).permutation(len(all_labels)))
    first, second = (labels.within_limits(t, Data(max_labelled=8, max_test=5)) for t in (all_labels, shuffled))
    key = [("task_id", "ascending"), ("note_id", "ascending")]
    assert first.sort_by(key) == second.sort_by(key)


def test_self_supervision_leaves_out_held_out_notes_and_their_groups():
    notes = pa.table({"note_id": ["a", "b", "c", "d", "e"], "group_id": ["p", "p", None, "q", None]})
    held = table(("t", "a", "1", "test"), ("t", "c", "1", "dev"), ("t", "d", "0", "train"))
    assert sorted(labels.for_self_supervision(notes, held, Data()).to_pylist()) == ["d", "e"]
    assert len(labels.for_self_supervision(notes, held, Data(transductive=True))) == 5
    two = labels.for_self_supervision(notes, held, Data(transductive=True, max_unlabelled=2)).to_pylist()
    three = labels.for_self_supervision(notes, held, Data(transductive=True, max_unlabelled=3)).to_pylist()
    assert three[:2] == two


def test_a_share_of_the_groups_is_for_pretraining_alone():
    ids = [f"n{i}" for i in range(400)]
    groups = [None if i % 4 else f"p{i // 8}" for i in range(400)]
    held = table(*[("t", i, "1" if n % 2 else "0", "test" if n < 40 else "train") for n, i in enumerate(ids)])
    data = Data(pretraining_share=0.6)
    listed = pa.table({"note_id": ids, "group_id": pa.array(groups, pa.string())})
    notes = rows.table(
        [{"note_id": i, "group_id": g, "text": f"nota {i}"} for i, g in zip(ids, groups, strict=False)], rows.NOTES
    )

    read = [hold_out(notes, None, None, 0.6, pretrains) for pretrains in (True, False)]
    apart, learned = ({n["note_id"] for n in part.to_pylist() if n["text"]} for part in read)
    assert apart | learned == set(ids)
    assert not apart & learned
    assert 0.5 < len(apart) / 400 < 0.7
    for group in set(groups) - {None}:
        assert len({n["note_id"] in apart for n in notes.to_pylist() if n["group_id"] == group}) == 1

    broken = rows.table([{"note_id": i, "error": "E_NULL"} for i in ids], rows.NOTES)
    codes = [n["error"] for n in hold_out(broken, None, None, 0.6, False).to_pylist()]
    assert set(codes) == {"E_NULL", "NOT_SAMPLED"}  # a note that nobody asked for is no failure

    kept = labels.to_learn_from(held, listed, [task()], data)
    train = {r["note_id"] for r in kept.to_pylist() if r["split"] == "train"}
    assert train
    assert train <= learned
    assert sum(r["split"] == "test" for r in kept.to_pylist()) == 40
    assert set(labels.for_self_supervision(listed, held, data).to_pylist()) < learned
    assert labels.to_learn_from(held, listed, [task()], Data()) is held
    with pytest.raises(InputError, match=r"has 0 of its classes outside data\.pretraining_share"):
        labels.to_learn_from(held, listed, [task()], Data(pretraining_share=0.9999))


def test_multilabel_rows_become_yes_and_no(tmp_path):
    given_rows = table(
        ("m", "a", "x", "train"), ("m", "a", "y", "train"), ("m", "b", "", "train"), ("m", "c", None, "test"),
        ("m", "d", "y", "train"), ("t", "a", "1", "train"), ("t", "b", "0", "train"), ("other", "a", "?", "train"),
    )  # fmt: skip
    pq.write_table(given_rows, tmp_path / "labels.parquet")
    tasks = [task(), *(task(f"m.{label}", (YES, NO), ("m", label)) for label in "xy")]
    found = labels.read_labels(Data(labels=str(tmp_path / "labels.parquet")), tasks)
    assert found.schema == rows.LABELS
    got = {(r["task_id"], r["note_id"]): r["label"] for r in found.to_pylist()}
    assert got == {
        ("t", "a"): "1", ("t", "b"): "0",
        ("m.x", "a"): YES, ("m.x", "b"): NO, ("m.x", "c"): NO, ("m.x", "d"): NO,
        ("m.y", "a"): YES, ("m.y", "b"): NO, ("m.y", "c"): NO, ("m.y", "d"): YES,
    }  # fmt: skip


def test_a_multilabel_label_that_no_part_asks_about_is_told(tmp_path):
    given_rows = table(("m", "a", "x", "train"), ("m", "b", "y ", "train"), ("m", "c", "z", "train"))
    pq.write_table(given_rows, tmp_path / "labels.parquet")
    tasks = [task(f"m.{label}", (YES, NO), ("m", label)) for label in "xy"]
    with pytest.raises(InputError, match=r"task 'm': 2 labels \(2 rows; hashed: .*\) are none of its options"):
        labels.read_labels(Data(labels=str(tmp_path / "labels.parquet")), tasks)
    some = labels.read_labels(Data(labels=str(tmp_path / "labels.parquet"), task_ids=["m.x"]), tasks[:1])
    assert some["label"].to_pylist() == [YES, NO, NO], "of parts that are left out labels are no mistake"


@pytest.mark.parametrize("name", ["l.csv", "l.jsonl"])
def test_labels_from_text_files_keep_their_zeros(tmp_path, name):
    data = [("t", "007", "1", "train"), ("t", "7", "0", "train")]
    lines = [",".join(rows.LABELS.names), *(",".join(row) for row in data)]
    if name.endswith("jsonl"):
        lines = [json.dumps(dict(zip(rows.LABELS.names, row, strict=True))) for row in data]
    (tmp_path / name).write_text("\n".join(lines))
    assert labels.read_labels(Data(labels=str(tmp_path / name)), [task()]) == table(*data)


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_csv_of_european_spreadsheets(tmp_path, delimiter):
    lines = [
        ["note_id", "text", "fever", "split"],
        ["a", '"Tosse, febbre;\nnausea"', "1", "train"],
        ["b", "x", "0", "train"],
    ]
    (tmp_path / "n.csv").write_text("\n".join(delimiter.join(line) for line in lines))
    notes = read(Data(notes=str(tmp_path / "n.csv")))
    assert [note["text"] for note in notes] == ["Tosse, febbre;\nnausea", "x"]
    read_back = storage.read_strings(str(tmp_path / "n.csv"), ["fever", "note_id"], "data.labels").to_pylist()
    assert read_back == [{"fever": "1", "note_id": "a"}, {"fever": "0", "note_id": "b"}]


def test_a_semicolon_in_a_name_does_not_make_it_the_delimiter(tmp_path):
    (tmp_path / "n.csv").write_text("note_id,text;x\na,b\n")
    assert storage.read_strings(str(tmp_path / "n.csv"), ["text;x"], "f").to_pylist() == [{"text;x": "b"}]


def test_the_delimiter_is_the_one_that_the_first_line_has_most_of(tmp_path):
    (tmp_path / "n.csv").write_text('note_id;"Febbre > 37,5; sera";text\na;1;tosse\n')
    assert read(Data(notes=str(tmp_path / "n.csv")))[0]["text"] == "tosse"
    found = storage.read_strings(str(tmp_path / "n.csv"), ["Febbre > 37,5; sera"], "f")
    assert found.column(0).to_pylist() == ["1"]


def test_a_text_with_commas_and_no_quotes_is_refused_not_cut(tmp_path):
    (tmp_path / "n.csv").write_text("note_id,text,group\n0,tosse,A,,\n1,febbre, tosse e dispnea,A\n")
    data = Data(notes=str(tmp_path / "n.csv"), columns=Columns(group_id="group"))
    with pytest.raises(InputError, match=r"n\.csv:3: 4 cells under 3 names of columns: quote what holds"):
        read(data)
    with pytest.raises(InputError, match=r"n\.csv:3: 4 cells under 3 names of columns: quote what holds"):
        storage.read_strings(data.notes, ["group"], "data.labels")
    (tmp_path / "n.csv").write_text("note_id,text,group\n0,tosse,A,,\n1,febbre\n")
    assert storage.read_strings(data.notes, ["group"], "data.labels")["group"].to_pylist() == ["A", None]


def test_a_broken_line_of_labels_is_told_with_the_key_of_the_config(tmp_path):
    (tmp_path / "l.csv").write_text("note_id,label\na,1\nb,1,0\n")
    with pytest.raises(InputError, match=r"data\.labels: .*l\.csv:3: 3 cells under 2 names"):
        storage.read_strings(str(tmp_path / "l.csv"), ["note_id", "label"], "data.labels")


def test_whole_numbers_of_a_column_with_gaps_are_ids(tmp_path):
    """As pandas writes them to JSON."""
    rows_of = [{"note_id": 1.0, "text": "tosse", "p": 12.0}, {"note_id": 2.0, "text": "febbre", "p": None}]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, rows_of)))
    notes = read(Data(notes=str(tmp_path / "n.jsonl"), columns=Columns(group_id="p")))
    assert [(note["note_id"], note["group_id"]) for note in notes] == [("1", "12"), ("2", None)]
    assert cleaning.as_id(1.5) is None
    assert [column.n_filled for column in look(str(tmp_path / "n.jsonl"), "--notes")] == [2, 2, 1]
    found = storage.read_strings(str(tmp_path / "n.jsonl"), ["note_id", "p"], "data.labels").to_pylist()
    assert found == [{"note_id": "1", "p": "12"}, {"note_id": "2", "p": None}]


def test_groups_that_no_note_has_are_a_mistake(tmp_path):
    (tmp_path / "n.jsonl").write_text(json.dumps({"note_id": "1", "text": "tosse", "patient": "a"}))
    with pytest.raises(InputError, match=r"data\.columns\.group_id: no note has a 'pateint'"):
        check(Config(data=Data(notes=str(tmp_path / "n.jsonl"), columns=Columns(group_id="pateint"))))


def test_labels_in_jsonl_are_what_is_written(tmp_path):
    """Also beside what Arrow makes a time of, columns of mixed types, and spans as lists."""
    lines = [
        {"note_id": "2024-01-01", "label": "2024-01-01", "spans": [["D", 0, 1]], "more": 1},
        {"note_id": 7, "label": "b", "spans": None, "more": "x"},
        {"note_id": "A7", "label": None},
    ]
    (tmp_path / "l.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    found = storage.read_strings(str(tmp_path / "l.jsonl"), ["note_id", "label"], "f").to_pydict()
    assert found == {"note_id": ["2024-01-01", "7", "A7"], "label": ["2024-01-01", "b", None]}
    for text, said in (
        ('{"label": true}\n{"label": "x"}', "column label holds bool; write text or whole numbers"),
        ('{"lable": "x"}', r"l\.jsonl: no column label \(there is 'lable'\)"),
        ("[1]", r"cannot be read \(ValueError\)"),
        ("[" * 100_000, r"cannot be read \(ValueError\)"),
    ):
        (tmp_path / "l.jsonl").write_text(text)
        with pytest.raises(InputError, match=said):
            storage.read_strings(str(tmp_path / "l.jsonl"), ["label"], "f")


def test_labels_that_are_not_utf8_say_what_to_do(tmp_path):
    (tmp_path / "l.csv").write_bytes("note_id,label\na,s\xec\n".encode("cp1252"))
    (tmp_path / "l.jsonl").write_bytes('{"note_id": "a", "label": "s\xec"}'.encode("cp1252"))
    for name in ("l.csv", "l.jsonl"):
        with pytest.raises(InputError, match=r"column label is not UTF-8; save it as UTF-8, or .*--encoding"):
            storage.read_strings(str(tmp_path / name), ["note_id", "label"], "data.labels")


def test_what_editors_leave_in_a_folder_is_no_input(tmp_path):
    write(tmp_path / "a.csv", NOTES)
    before = storage.listing(str(tmp_path), "f")
    for name in (".~lock.a.csv#", ".DS_Store", "_SUCCESS"):
        (tmp_path / name).write_text("")
    assert storage.listing(str(tmp_path), "f") == before
    assert len(before) == 1
    (alone,) = storage.listing(str(tmp_path / "_SUCCESS"), "f")
    assert alone[0].endswith("_SUCCESS"), "named by itself it counts"
    stray, below = [f"{tmp_path}/.DS_Store", 1, 2], [f"{tmp_path}/.cache/download/a.metadata", 1, 2]
    recorded = {
        "inputs": {"notes": [*before, stray], "model": {"m": [below, *before]}, "none": []}, "list": ["a"]
    }  # fmt: skip
    assert inputs.without_strays(recorded) == {
        "inputs": {"notes": before, "model": {"m": before}, "none": []}, "list": ["a"]
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["", "/**/*.csv"])
def test_what_programs_keep_in_folders_of_their_own_is_no_input(tmp_path, pattern):
    for folder in ("", "part", ".ipynb_checkpoints", "part/_delta_log"):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder / "a.csv", NOTES)
    found = {file.path.removeprefix(str(tmp_path)) for file in storage.find(f"{tmp_path}{pattern}", "f")}
    assert found == {"/a.csv", "/part/a.csv"}
    assert len(storage.listing(f"{tmp_path}{pattern}", "f")) == 2
    (named,) = storage.find(str(tmp_path / "part/_delta_log/*.csv"), "f")
    assert "_delta_log" in named.path, "named by itself it counts"


def test_a_row_that_a_line_break_cut_is_refused_with_its_line(tmp_path):
    (tmp_path / "n.csv").write_text("id,patient,text,ward\n7,p1,Febbre\nNega allergie.\n8,p2,Tosse,a\n   \n\n")
    data = Data(notes=str(tmp_path / "n.csv"), columns={"note_id": "id"})
    with pytest.raises(InputError, match=r"n\.csv:3: ends before the column 'text': quote what holds a line break"):
        list(tables(data, ["note_id", "text"]))
    (tmp_path / "n.csv").write_text("id,patient,text,ward\n7,p1,Febbre\n8,p2,Tosse,a\n   \n\n")
    read, ids = (pa.concat_tables(tables(data, columns)) for columns in (["note_id", "text"], ["note_id"]))
    assert read["text"].to_pylist() == ["Febbre", "Tosse"]
    assert read["note_id"] == ids["note_id"], "every pass over the file numbers the same rows"


def test_pretraining_has_the_groups_of_its_files(tmp_path):
    write(tmp_path / "without.csv", NOTES)
    (tmp_path / "with.csv").write_text("note_id,text,patient\n1,Tosse.,p\n")

    def group(files):
        return of_pretraining(Data(pretraining=str(tmp_path / files), columns={"group_id": "patient"})).columns.group_id

    assert [group(files) for files in ("with.csv", "without.csv", "*.csv")] == ["patient", None, None]
    assert of_pretraining(Data(pretraining=str(tmp_path / "with.csv"))).columns.group_id is None
    assert of_pretraining(Data()) == Data()


def test_patients_of_test_notes_pretrain_nothing(tmp_path):
    (tmp_path / "p.csv").write_text("note_id,text,patient\n1,Tosse.,p\n2,Febbre.,q\n")
    data = Data(pretraining=str(tmp_path / "p.csv"), columns={"group_id": "patient"})
    corpus = Corpus(tmp_path, data, [], rows.LABELS.empty_table())
    corpus.__dict__["guard"] = Guard(group_ids=frozenset({"p"}))
    assert list(corpus.texts(pretrains=True)) == ["Febbre."]


class Disk(fs.LocalFileSystem):
    """One that fails where a test says so."""


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["n.csv", "n.parquet", "n.jsonl"])
def test_a_disk_that_fails_is_trouble_with_the_disk(tmp_path, monkeypatch, name, number):
    """In whichever moment: when files are listed, when rows are read, and of labels."""
    monkeypatch.setattr(storage.fs, "LocalFileSystem", Disk)
    write(tmp_path / name, NOTES)
    data = Data(notes=str(tmp_path / name))
    (unit,) = units(data)

    def fail(*_):
        raise OSError(number, "a note's words")

    opens = "open_input_file" if name.endswith("parquet") else "open_input_stream"
    for method, work in (
        ("get_file_info", lambda: units(data)),
        (opens, lambda: list(read_unit(unit, data, ["note_id"]))),
        (opens, lambda: storage.read_strings(data.notes, ["note_id"], "data.labels")),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(Disk, method, fail)
            with pytest.raises(InputError) as failure:
                work()
        assert failure.value.exit_code == ExitCode.STORAGE
        assert str(failure.value).startswith(f"{tmp_path / name}: ")
        assert "words" not in str(failure.value)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file whose reading is an error of the disk")
def test_a_disk_that_fails_is_told_apart_from_other_problems(tmp_path):
    """All are said, and the exit code is that of the disk."""
    (tmp_path / "notes.csv").symlink_to("/proc/self/mem")
    with pytest.raises(InputError) as failure:
        check(Config(data=Data(notes=str(tmp_path / "notes.csv"), labels=str(tmp_path / "no.csv"))))
    assert failure.value.exit_code == ExitCode.STORAGE
    said = str(failure.value)
    assert f"{tmp_path / 'notes.csv'}: the disk failed" in said
    assert "data.labels" in said


def test_a_broken_table_is_wrong_input_and_no_matter_of_dead_letters(tmp_path):
    (tmp_path / "n.csv").write_text('note_id,text\n1,"never closed')
    with pytest.raises(InputError, match="not valid CSV") as failure:
        read(Data(notes=str(tmp_path / "n.csv")))
    assert failure.value.exit_code == ExitCode.CONFIG
