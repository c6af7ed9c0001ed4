"""Every way in which notes and labels can be broken has a stated outcome: an error before the run, or a code."""

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.errors import InputError
from raypipe.notes import labels
from raypipe.notes.cleaning import clean, hashed
from raypipe.notes.files import iter_notes
from raypipe.notes.tasks import Task, load_tasks
from raypipe.settings.config import Data

SECRET = "Mario Rossi, nato a Pavia"  # stands for what must never reach a message


def cleaned(note_id="n", text="testo", max_chars=1000):
    (row,) = clean({"note_id": [note_id], "text": [text]}, rows.NOTES.names, max_chars, "f", 7).to_pylist()
    return row


def read(path, **settings):
    return pa.concat_tables(iter_notes(Data(notes=str(path), **settings))).to_pylist()


def refusal(part, *args, **settings):
    with pytest.raises(InputError) as error:
        part(*args, **settings)
    assert SECRET not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "E_NULL"),
        *[(text, "E_TYPE") for text in (1, 1.5, True, ["a"], {"a": 1}, object())],
        *[(text, "E_EMPTY") for text in ("", " ", "\n\t", "\x00", "\x1b", "\ufeff", "\u200b", "\u202e", "- !", "🙂")],
        *[(text, "E_UTF8") for text in (b"caff\xe8", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", "a\ud800", "\udcff b")],
        ("à" * 1001, "E_TOO_BIG"),
        (b"a" * 4001, "E_TOO_BIG"),
        ("\u0958" * 600, "E_TOO_BIG"),  # NFC makes two characters of each
    ],
)  # fmt: skip
def test_unusable_text_is_a_code_without_text(text, code):
    assert cleaned(text=text) == {"note_id": "n", "group_id": None, "text": None, "error": code}


@pytest.mark.parametrize(
    "text",
    ["a\x00b", "\ufefftosse", "a\u200bb", "\u202edolore", "🙂 ok", "日本", "שלום", "37,5 °C", "=1+1", "<b>", "à" * 999],
)  # fmt: skip
def test_unusual_but_legal_text_is_kept_as_it_is(text):
    assert (cleaned(text=text)["text"], cleaned(text=text)["error"]) == (text, None)


@pytest.mark.parametrize(
    "note_id", [None, "", "  ", "x" * 10_000, 1.0, float("nan"), True, ["a"], {"a": 1}, b"\xff", "\ud800", "x" * 513]
)
def test_unusable_id_gets_one_of_its_place(note_id):
    assert cleaned(note_id) == {"note_id": "E_ID:f:7", "group_id": None, "text": None, "error": "E_ID"}


@pytest.mark.parametrize(
    ("note_id", "kept"),
    [
        (7, "7"), (2**70, str(2**70)), ("007", "007"), ("../../etc", "../../etc"), ("a\nb", "a\nb"), (b"\xc3\xa8", "è"),
        ("x" * 512, "x" * 512),
    ],
)  # fmt: skip
def test_odd_ids_are_strings_and_never_paths(note_id, kept):
    assert (cleaned(note_id)["note_id"], cleaned(note_id)["error"]) == (kept, None)


def test_every_bad_line_of_a_jsonl_file_is_a_row(tmp_path):
    lines = [
        b'{"note_id": "a", "text": "ok"}', b"", b"not json", b"[1, 2]", b'{"note_id": "b"}', b'{"text": "no id"}',
        b'{"note_id": "c", "text": "\\ud800"}', b'{"note_id": "d", "text": "caff\xe8"}', b'{"note_id": "e", "text": 5}',
        b'{"note_id": "f", "text": "' + b"x" * 300_000 + b'"}', b"[" * 9_000, b'{"note_id": "g", "text": "last"}',
    ]  # fmt: skip
    (tmp_path / "n.jsonl").write_bytes(b"\n".join(lines))
    found = read(tmp_path / "n.jsonl", max_chars=100)
    codes = [None, "E_TYPE", "E_TYPE", "E_NULL", "E_ID", "E_UTF8", "E_UTF8", "E_TYPE", "E_TOO_BIG", "E_TYPE", None]
    assert [row["error"] for row in found] == codes
    assert len({row["note_id"] for row in found}) == len(codes)


def test_broken_utf8_in_csv_and_parquet_is_one_row(tmp_path):
    (tmp_path / "n.csv").write_bytes(b"note_id,text\na,caff\xe8\nb,ok\nc,\n")
    broken = pa.StringArray.from_buffers(2, *pa.array([b"caff\xe8", b"ok"], pa.binary()).buffers()[1:])
    pq.write_table(pa.table({"note_id": ["a", "b"], "text": broken}), tmp_path / "n.parquet")
    assert [row["error"] for row in read(tmp_path / "n.csv")] == ["E_UTF8", None, "E_EMPTY"]
    assert [row["error"] for row in read(tmp_path / "n.parquet")] == ["E_UTF8", None]


@pytest.mark.parametrize("other", ["same", "different"])
def test_a_repeated_id_stops_the_run_with_a_count_and_no_id(tmp_path, other):
    (tmp_path / "n.jsonl").write_text(
        "".join(json.dumps({"note_id": SECRET, "text": text}) + "\n" for text in ("same", other))
    )
    message = refusal(read, tmp_path / "n.jsonl")
    assert "1 note ids occur more than once (2 rows" in message
    assert hashed(SECRET) in message


@pytest.mark.parametrize("data", [{"notes": None}, {"notes": "nowhere.csv"}, {"notes": "http://169.254.169.254/x.csv"},
                                  {"notes": "ftp://x/y.csv"}, {"notes": "gopher://x"}])  # fmt: skip
def test_no_such_source(data):
    assert "data.notes" in refusal(lambda: list(iter_notes(Data(**data))))


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        ("testo", ["a"], "has no column 'text'"),
        ("text", [1], "column 'text' holds int64, not text"),
        ("text", [b"a"], "column 'text' holds binary, not text"),
        ("text", [["a"]], "column 'text' holds list<"),
        ("text", [{"a": 1}], "column 'text' holds struct<"),
    ],
)
def test_a_wrong_column_is_named_before_the_run(tmp_path, column, values, what):
    pq.write_table(pa.table({"note_id": ["a"], "text": ["b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"note_id": ["b"], column: values}), tmp_path / "b.parquet")
    message = refusal(read, tmp_path)
    assert what in message
    assert "b.parquet" in message
    assert "a.parquet" not in message


def test_fractional_ids_are_refused(tmp_path):
    pq.write_table(pa.table({"note_id": [1.5], "text": ["b"]}), tmp_path / "a.parquet")
    assert "data.columns.note_id" in refusal(read, tmp_path)


def test_extra_columns_empty_files_and_empty_row_groups_are_fine(tmp_path):
    table = pa.table({"x": [[1]], "text": ["b"], "note_id": pa.array(["a"]).dictionary_encode()})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for part in (table[:0], table, table[:0]):
            writer.write_table(part)
    pq.write_table(
        pa.table({"note_id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "b.parquet"
    )
    assert [row["text"] for row in read(tmp_path)] == ["b"]
    pq.write_table(pa.table({"note_id": ["c"], "text": pa.nulls(1)}), tmp_path / "c.parquet")
    assert [row["error"] for row in read(tmp_path)] == [None, "E_NULL"]


@pytest.mark.parametrize("name", ["n.parquet", "n.jsonl.gz", "n.csv.gz", "n.csv"])
def test_a_broken_file_is_named_and_never_quoted(tmp_path, name):
    secret = f"note_id,text\na,{SECRET}\n".encode() * 50
    broken = {
        "n.parquet": b"PAR1" + secret,
        "n.jsonl.gz": gzip.compress(secret)[:-20],
        "n.csv.gz": b"\x1f\x8b" + secret,
        "n.csv": b'note_id,text\na,"' + (SECRET.encode() * 10_000),  # a quote that never closes
    }
    (tmp_path / name).write_bytes(broken[name])
    assert name in refusal(read, tmp_path / name, max_chars=1000)


def test_arrow_extension_types_are_refused_unread(tmp_path):
    # its real storage type, so that the type is refused whether or not this process has registered it
    field = pa.field("text", pa.large_binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    table = pa.table({"note_id": ["a"], "text": [b"b"]}, schema=pa.schema([pa.field("note_id", pa.string()), field]))
    pq.write_table(table, tmp_path / "n.parquet")
    assert "Arrow extension type" in refusal(read, tmp_path)


def test_a_parquet_bomb_stays_small_in_memory(tmp_path):
    """300 MB of text in a file of a few kB, as one dictionary entry; its footer does not say so."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["a" * 1_000_000])
    table = pa.table({"note_id": [str(i) for i in range(300)], "text": text})
    pq.write_table(table, tmp_path / "n.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "n.parquet").stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    for table in iter_notes(Data(notes=str(tmp_path), max_chars=1000)):
        assert set(table["error"].to_pylist()) <= {"E_TOO_BIG"}
        assert pa.total_allocated_bytes() - before < 150_000_000  # 64 rows at a time


@pytest.mark.parametrize(
    ("name", "line"), [("n.jsonl.gz", b'{"note_id": "a", "text": "'), ("n.csv.gz", b"note_id,text\na,")]
)
def test_a_gzip_bomb_stays_small_in_memory(tmp_path, name, line):
    """100 MB of one note in 100 kB."""
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(line)
        for _ in range(100):
            file.write(b"a" * 1_000_000)
    assert (tmp_path / name).stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        if name == "n.csv.gz":
            with pytest.raises(InputError, match=r"not valid CSV: .* or a cell over 131,072 characters"):
                list(iter_notes(Data(notes=str(tmp_path), max_chars=1000)))
        else:
            (table,) = (table for table in iter_notes(Data(notes=str(tmp_path), max_chars=1000)) if len(table))
            assert table["error"].to_pylist() == ["E_TOO_BIG"]
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_the_longest_cell_of_csv_is_read_however_it_is_written(tmp_path):
    (tmp_path / "n.csv").write_text('text\n"' + '""' * 131_072 + '"\r\n', newline="")
    columns = {"note_id": "text", "text": "text"}
    (table,) = (table for table in iter_notes(Data(notes=str(tmp_path), columns=columns, max_chars=10)) if len(table))
    assert len(table) == 1


# --- labels


TASK = Task("t", "binary", "q", ("1", "0"), ("sì", "no"))
GOOD = [("t", "a", "1", "train"), ("t", "b", "0", "train"), ("t", "c", "1", "test")]


def read_labels(tmp_path, data, columns=rows.LABELS.names, tasks=(TASK,)):
    table = pa.Table.from_pydict({name: [row[i] for row in data] for i, name in enumerate(columns)})
    pq.write_table(table, tmp_path / "labels.parquet")
    return labels.read_labels(Data(labels=str(tmp_path / "labels.parquet")), list(tasks))


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (("t", "d", "2", "train"), f"1 label (1 rows; hashed: {hashed('2')}) is none of its options ('1', '0')"),
        (("t", "d", None, "train"), "none of its options"),
        (("t", "d", "", "train"), "none of its options"),
        (("t", "d", " 1", "train"), "none of its options"),
        (
            ("t", "d", "1", "validation"),
            f"1 split (1 rows; hashed: {hashed('validation')}) is none of train, dev, test",
        ),
        (("t", "d", "1", None), "1 split (1 rows; empty) is none of"),
        (("t", "a", "1", "test"), f"1 notes are in two splits (hashed ids: {hashed('a')})"),
        (("t", "a", "0", "train"), "1 notes have two labels"),
        (("t", "a", "1", "train"), "1 notes have two labels"),
    ],
)
def test_one_bad_label(tmp_path, extra, what):
    assert what in refusal(read_labels, tmp_path, [*GOOD, extra])


def test_all_label_problems_at_once(tmp_path):
    tasks = (TASK, Task("u", "binary", "q", ("1", "0"), ("sì", "no")))
    message = refusal(read_labels, tmp_path, [("t", "a", "1", "train"), ("t", "b", "2", "tset")], tasks=tasks)
    assert "task 't': the train split has 1 of its classes" in message
    assert "task 'u': has no rows" in message
    assert "none of its options" in message
    assert hashed("tset") in message


@pytest.mark.parametrize("column", ["label", "split"])
def test_a_column_of_text_in_place_of_labels_or_splits_is_counted_and_not_shown(tmp_path, column):
    note = f"Paziente {SECRET}, in pronto soccorso per dolore toracico da due giorni."
    data = [
        *GOOD,
        *[("t", f"n{i}", *((f"{note} {i}", "train") if column == "label" else ("1", note))) for i in range(9)],
    ]
    message = refusal(read_labels, tmp_path, data)
    assert "(9 rows" in message
    assert f"the column {column} looks like text" in message
    assert "Paziente" not in message


def test_a_column_of_text_in_place_of_a_tasks_labels_is_not_shown(tmp_path):
    counts = json.dumps({f"{SECRET} {'e poi ' * 40}": 3, "no": 4})
    table = {"task_id": ["t"], "kind": ["binary"], "description": ["d"], "class_counts": [counts]}
    pq.write_table(pa.table(table), tmp_path / "tasks.parquet")
    assert "one has over 100 characters" in refusal(load_tasks, str(tmp_path / "tasks.parquet"))


# --- tables of odd shapes


def test_a_file_without_rows_is_one_line(tmp_path):
    pq.write_table(
        pa.table({"note_id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "n.parquet"
    )
    assert refusal(read, tmp_path / "n.parquet") == f"data.notes: {tmp_path / 'n.parquet'}: holds no note"


@pytest.mark.parametrize("name", ["n.parquet", "n.csv"])
def test_a_column_of_notes_that_is_there_twice_is_one_line(tmp_path, name):
    if name == "n.csv":
        (tmp_path / name).write_text("note_id,text,text\na,b,c\n")
    else:
        pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["note_id", "text", "text"]), tmp_path / name)
    assert refusal(read, tmp_path / name) == f"data.columns.text: {tmp_path / name} has the column 'text' twice"


def test_a_column_of_labels_that_is_there_twice_is_one_line(tmp_path):
    table = pa.table([["t"], ["n"], ["1"], ["train"], ["dev"]], names=[*rows.LABELS.names, "split"])
    pq.write_table(table, tmp_path / "labels.parquet")
    message = refusal(labels.read_labels, Data(labels=str(tmp_path / "labels.parquet")), [TASK])
    assert message.endswith("the column split is there twice")


def test_deep_json_in_a_cell_of_the_tasks_is_one_line(tmp_path):
    table = {"task_id": ["t"], "kind": ["binary"], "description": ["d"], "class_counts": ["[" * 100_000]}
    pq.write_table(pa.table(table), tmp_path / "tasks.parquet")
    assert "row 0: class_counts must be JSON" in refusal(load_tasks, str(tmp_path / "tasks.parquet"))


@pytest.mark.parametrize("label", [1.0, True, b"1", [1]])
def test_labels_of_a_wrong_type_are_refused(tmp_path, label):
    data = [(*row[:2], label, row[3]) for row in GOOD]
    assert "column label holds" in refusal(read_labels, tmp_path, data)


def test_integer_labels_are_their_digits(tmp_path):
    data = [(*row[:2], int(row[2]), row[3]) for row in GOOD]
    assert set(read_labels(tmp_path, data)["label"].to_pylist()) == {"1", "0"}


def test_a_missing_column_is_named(tmp_path):
    assert "no column split" in refusal(read_labels, tmp_path, [row[:3] for row in GOOD], rows.LABELS.names[:3])


def test_labels_against_notes():
    table = pa.Table.from_pylist([dict(zip(rows.LABELS.names, row, strict=True)) for row in GOOD], schema=rows.LABELS)
    notes = pa.table({"note_id": ["a", "c"], "group_id": ["Rossi", "Rossi"]})
    absent, straddling = (str(problem) for problem in labels.problems_with(notes, table))
    assert "1 labelled notes are not among the notes" in absent
    assert straddling.startswith("data.labels: task 't': 1 groups")
    assert "Rossi" not in straddling
