"""Tables and what stands beside them: files of notes, single notes, labels, tasks, spans, tags, terms, word counts."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from raypipe.errors import Code
from tests.bad_input.case import CANARY, Accepted, Case, DeadLetter, Handled, Outcome, Refused
from tests.bad_input.configs import examples
from tests.bad_input.ground import LABELS, NOTES, TASKS, Ground, write_config, write_csv

CHECK = ("check", "--config", "c.yaml")
COLUMNS = {name: [note[name] for note in NOTES] for name in NOTES[0]}
EXTENSION = pa.field("text", pa.large_binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})


def _csv(**columns: list[Any]) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in [columns, *zip(*columns.values(), strict=True)]).encode()


def _jsonl(table: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def _parquet(table: pa.Table | dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), sink)
    return sink.getvalue().to_pybytes()


GOOD = {
    "parquet": _parquet(COLUMNS),
    "csv": (
        "note_id,text,patient\n" + "".join(f'{n["note_id"]},"{n["text"]}",{n["patient"]}\n' for n in NOTES)
    ).encode(),
    "jsonl": _jsonl(NOTES),
}
BYTES: dict[str, Callable[[bytes], bytes]] = {  # what may befall a file
    "empty": lambda b: b"",
    "cut": lambda b: b[: len(b) // 2],
    "without its end": lambda b: b[:-9],
    "zeros": lambda b: bytes(len(b)),
    "another magic": lambda b: b"PAR2" + b[4:],
    "as gzip": lambda b: gzip.compress(b),
    "a page": lambda b: b"<html><body>404</body></html>",
    "UTF-16": lambda b: b.decode(errors="replace").encode("utf-16"),
    "flipped": lambda b: (
        b[: len(b) // 3] + bytes(255 - x for x in b[len(b) // 3 : len(b) // 3 + 40]) + b[len(b) // 3 + 40 :]
    ),
}
MAY_BE_READ = {"flipped", "another magic"}  # Arrow looks at the other end of a Parquet file
FILES: dict[str, tuple[str, bytes, Outcome]] = {  # name of the file, content, outcome
    "no column text": ("n.csv", _csv(note_id=["a"], testo=[CANARY]), Refused("has no column 'text'")),
    "no column id": ("n.csv", _csv(text=[CANARY]), Refused("data.columns.note_id: ")),
    "a header alone": ("n.csv", b"note_id,text,patient\n", Refused("holds no note")),
    "text twice": (
        "n.csv",
        f"note_id,text,text,patient\na,{CANARY},b,c\n".encode(),
        Refused("has the column 'text' twice"),
    ),
    "a quote that never closes": (
        "n.csv",
        b'note_id,text,patient\na,"' + CANARY.encode() * 10,
        Refused("n.csv:2: not valid CSV"),
    ),
    "semicolons": ("n.csv", GOOD["csv"].replace(b",", b";"), Handled("data")),
    "no row": ("n.parquet", _parquet(pa.table(COLUMNS)[:0]), Refused("holds no note")),
    "parquet, text twice": (
        "n.parquet",
        _parquet(pa.table([["a"], [CANARY], ["c"], ["d"]], ["note_id", "text", "text", "patient"])),
        Refused("has the column 'text' twice"),
    ),
    "numbers": (
        "n.parquet",
        _parquet(COLUMNS | {"text": list(range(24))}),
        Refused("column 'text' holds int64, not text"),
    ),
    "bytes": ("n.parquet", _parquet(COLUMNS | {"text": [CANARY.encode()] * 24}), Refused("column 'text' holds binary")),
    "lists": ("n.parquet", _parquet(COLUMNS | {"text": [[CANARY]] * 24}), Refused("column 'text' holds list<")),
    "structs": (
        "n.parquet",
        _parquet(COLUMNS | {"text": [{"a": CANARY}] * 24}),
        Refused("column 'text' holds struct<"),
    ),
    "nulls": ("n.parquet", _parquet(COLUMNS | {"text": pa.nulls(24)}), Refused("can be used (E_NULL)")),
    "fractional ids": (
        "n.parquet",
        _parquet(COLUMNS | {"note_id": [i / 2 for i in range(24)]}),
        Refused("data.columns.note_id"),
    ),
    "null ids": ("n.parquet", _parquet(COLUMNS | {"note_id": pa.nulls(24)}), Refused("data")),
    "an id twice": ("n.jsonl", _jsonl([NOTES[0], *NOTES]), Refused("1 note ids occur more than once")),
    "other ids": (
        "n.jsonl",
        _jsonl([{**n, "note_id": f"{CANARY}{i}"} for i, n in enumerate(NOTES)]),
        Refused("labelled notes are not among the notes"),
    ),
    "one patient": ("n.jsonl", _jsonl([{**n, "patient": CANARY} for n in NOTES]), Refused("have notes in two splits")),
    "an extension type": (
        "n.parquet",
        _parquet(
            pa.table(
                {"note_id": ["a"], "text": [CANARY.encode()], "patient": ["p"]},
                schema=pa.schema([("note_id", pa.string()), EXTENSION, ("patient", pa.string())]),
            )
        ),
        Refused("Arrow extension type"),
    ),
    "lines that are no JSON": ("n.jsonl", f"{CANARY}\n".encode() * 24, Refused("data.notes")),
    "lists in place of records": ("n.jsonl", f'["{CANARY}"]\n'.encode() * 24, Refused("data.notes")),
    "other keys": ("n.jsonl", _jsonl([{"a": CANARY}] * 24), Refused("data.notes")),
    "a spreadsheet": ("n.xlsx", b"PK\x03\x04" + CANARY.encode(), Refused("data.notes")),
    "a pickle": ("n.pkl", b"\x80\x04cos\nsystem\n.", Refused("data.notes")),
    "no ending": ("notes", GOOD["csv"], Refused("data.notes")),
    "an empty folder": ("folder/.hidden", b"", Refused("data.notes")),
}


def _case(
    ground: Ground, name: str, outcome: Outcome, files: dict[str, bytes], command: Any = CHECK, **changes: Any
) -> Case:
    def change(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        write_config(folder, **changes)

    return Case(name, command, outcome, change, ground.project)


def files_of_notes(ground: Ground) -> Iterator[Case]:
    """Files of notes that are broken, or not what they should be."""
    for kind, good in GOOD.items():
        yield _case(ground, f"{kind} as it is", Accepted("ok, "), {f"n.{kind}": good}, data__notes=f"n.{kind}")
        for what, change in BYTES.items():
            for command in (CHECK, ("plan", "--config", "c.yaml")):
                # of JSONL and CSV, some rows may be as they were; nothing of them may be a defect
                outcome = (
                    Handled() if kind != "parquet" or what in MAY_BE_READ else Refused(f"n.{kind}: cannot be read")
                )
                yield _case(
                    ground,
                    f"{command[0]} {kind} {what}",
                    outcome,
                    {f"n.{kind}": change(good)},
                    command,
                    data__notes=f"n.{kind}",
                )
    for name, (path, content, outcome) in FILES.items():
        place = path.split("/")[0] if "/" in path else path
        yield _case(ground, name, outcome, {path: content}, data__notes=place)


TOO_BIG = 2000  # data.max_chars of the table of single notes
SINGLE: dict[Any, Code | None] = {
    None: Code.NULL,
    **dict.fromkeys((1, 1.5, True), Code.TYPE),
    **dict.fromkeys(("", " ", "\n\t", "\x00", "\x1b", "\ufeff", "\u200b", "\u202e", "- !", "🙂", "_", "…"), Code.EMPTY),
    **dict.fromkeys(("a\ud800", "\udcff b", "\ud83d"), Code.UTF8),
    **dict.fromkeys(("à" * (TOO_BIG + 1), "\u0958" * (TOO_BIG // 2 + 1), "parola " * TOO_BIG), Code.TOO_BIG),
    **dict.fromkeys(
        (
            "a\x00b",
            "\ufefftosse",
            "a\u200bb",
            "\u202edolore",
            "🙂 ok",
            "日本",
            "שלום",
            "37,5 °C",
            "=1+1",
            "<b>x</b>",
            "<script>alert(1)</script>",
            "{{7*7}}",
            "{text}",
            "%s %n",
            "à",
            "\x1b[2Jtesto",
            "a\r\nb",
            "e\u0301",
        ),
        None,
    ),
}


def single_notes(ground: Ground) -> Iterator[Case]:
    """A table in which each note has a code of its own, or none; by hand and by hypothesis."""
    alphabet = st.characters(exclude_categories=())  # surrogates, controls, everything
    drawn = [text for text in examples(st.text(alphabet, max_size=40), 150) if text not in SINGLE]
    texts = [*SINGLE.items(), *((text if _code(text) else f"dolore toracico {text}", _code(text)) for text in drawn)]
    table = [{"note_id": f"x{i}", "text": text, "patient": f"x{i}"} for i, (text, _) in enumerate(texts)]
    content = GOOD["jsonl"] + _jsonl(table)
    changes = {
        "data__notes": "n.jsonl",
        "data__max_chars": TOO_BIG,
        "arms": {"a": {"masking": {"strategy": "random_word"}}},
    }
    shared: dict[str, Any] = {}
    for i, (text, code) in enumerate(texts):
        case = _case(
            ground,
            f"{text!r:.40}",
            DeadLetter(f"x{i}", code),
            {"n.jsonl": content},
            ("mask", "--config", "c.yaml"),
            **changes,
        )
        yield Case(case.name, case.arguments, case.outcome, case.change, case.of, shared)


def _code(text: str) -> Code | None:
    """What is stated of a text that hypothesis drew: broken, without a letter or digit, or a note."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return Code.UTF8
    return None if any(c.isalnum() for c in text) else Code.EMPTY


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
        yield _case(
            ground,
            f"{column} twice",
            Refused(f"the column {column} is there twice"),
            {"l.parquet": _parquet(double)},
            data__labels="l.parquet",
        )
        for kind, value in (("float", 1.5), ("list", ["1"]), ("bytes", b"\xff"), ("bool", True)):
            odd = {name: [value if name == column else row[name] for row in LABELS] for name in LABELS[0]}
            yield _case(
                ground,
                f"{column} {kind}",
                Refused(f"column {column} holds"),
                {"l.parquet": _parquet(odd)},
                data__labels="l.parquet",
            )
    kinds = {
        "parquet": _parquet(pa.Table.from_pylist(LABELS)),
        "csv": _csv(**{k: [r[k] for r in LABELS] for k in LABELS[0]}),
        "jsonl": _jsonl(LABELS),
    }
    for kind, good in kinds.items():
        for what, change in BYTES.items():
            yield _case(
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
        yield _case(
            ground, name, Refused(place) if name != "spans of nothing" else Handled(), {"tasks.yaml": text.encode()}
        )
    for name, (change, place) in TASK_TABLES.items():
        table = _parquet(pa.table(TASK_TABLE | change))
        yield _case(ground, f"table, {name}", Refused(place), {"t.parquet": table}, data__tasks="t.parquet")
    for what, change in BYTES.items():
        good = (ground.project / "tasks.yaml").read_bytes()
        yield _case(ground, f"yaml {what}", Handled(), {"tasks.yaml": change(good)})
        yield _case(
            ground,
            f"parquet {what}",
            Handled("data.tasks"),
            {"t.parquet": change(_parquet(TASK_TABLE))},
            data__tasks="t.parquet",
        )
    for column in TASK_TABLE:
        rest = {key: value for key, value in TASK_TABLE.items() if key != column}
        yield _case(
            ground,
            f"table without {column}",
            Refused(f"no column {column}"),
            {"t.parquet": _parquet(rest)},
            data__tasks="t.parquet",
        )


def _with_cells(name: str, cell: Any) -> bytes:
    return _jsonl([note | {name: cell if i == 0 else None} for i, note in enumerate(NOTES)])


def spans(ground: Ground) -> Iterator[Case]:
    """Spans and tags beside the notes, and what annotation tools export."""
    marked = {"tasks": [TASK | {"spans": ["F"]}, *TASKS["tasks"][1:]]}
    beside = json.dumps(marked).encode()
    for cell in (
        CANARY,
        "[",
        "{}",
        "[1]",
        '[["F", 0]]',
        '[["F", 0, 99999]]',
        '[["F", -1, 3]]',
        '[["F", 3, 3]]',
        '[["F", 5, 2]]',
        '[["F", 0.5, 2]]',
        '[["F", true, 2]]',
        "[[1, 0, 2]]",
        '[["F", "0", "2"]]',
        "[" * 100_000,
        '[["F", 0, 1e999]]',
    ):
        files = {"n.jsonl": _with_cells("s", cell), "tasks.yaml": beside}
        columns = {"group_id": "patient", "spans": "s"}
        yield _case(
            ground,
            f"spans {cell:.20}",
            Refused("data.columns.spans"),
            files,
            data__notes="n.jsonl",
            data__columns=columns,
        )
    for cell in (CANARY, "O", "B-", "B F", "O " * 500, "I", "X-F O", "b-f"):
        files = {"n.jsonl": _with_cells("t", cell), "tasks.yaml": beside}
        columns = {"group_id": "patient", "tags": "t"}
        yield _case(
            ground,
            f"tags {cell:.20}",
            Refused("data.columns.tags"),
            files,
            data__notes="n.jsonl",
            data__columns=columns,
        )
    note = {"note_id": "a", "text": f"febbre {CANARY}"}
    line = note | {"label": [[0, 6, "F"]]}
    region = {"type": "labels", "value": {"start": 0, "end": 6, "text": "febbre", "labels": ["F"]}}
    task = {"data": note, "annotations": [{"result": [region]}]}
    of_line: list[Any] = [
        1,
        None,
        [],
        CANARY,
        {},
        {"text": 1},
        {"text": CANARY},
        {**line, "note_id": 5},
        {**line, "note_id": ""},
        {**line, "label": None},
        {**line, "label": CANARY},
        {**line, "label": [[0, 99, "F"]]},
        {**line, "label": [[0, 6]]},
        {**line, "label": [["0", 6, "F"]]},
        {**line, "label": [[6, 0, "F"]]},
        {**line, "label": {"a": 1}},
        {**note, "entities": [{"label": "F"}]},
        {**note, "entities": 5},
        note,
    ]
    of_task: list[Any] = [
        {**task, "annotations": None},
        {**task, "annotations": []},
        {**task, "annotations": [{}]},
        {**task, "annotations": [{"result": [{}]}]},
        {**task, "annotations": [{"result": [{"type": "labels"}]}]},
        {**task, "annotations": [{"result": [region]}] * 2},
        {"data": CANARY},
        {**task, "annotations": [{"result": [{**region, "value": {**region["value"], "text": CANARY}}]}]},
        {**task, "annotations": [{"result": [{**region, "value": {**region["value"], "end": 999}}]}]},
        {"data": note},
        {"data": {"text": CANARY}},
    ]
    files: dict[str, bytes] = {f"line {record!r:.50}": _jsonl([record]) for record in of_line}
    files |= {f"task {record!r:.90}": json.dumps([record]).encode() for record in of_task}
    files |= {
        "twice": _jsonl([line, line]),
        "deep": b"[" * 100_000,
        "empty": b"",
        "an empty list": b"[]",
        "not UTF-8": b"\xff" * 9,
    }
    files |= {f"{what}": change(_jsonl([line])) for what, change in BYTES.items() if what != "without its end"}
    for name, content in files.items():
        command = ("import-spans", "s.json", "--out", "out.parquet")
        yield _case(ground, f"import {name}", Refused("s.json"), {"s.json": content}, command)


def terms(ground: Ground) -> Iterator[Case]:
    """Lexicons, and counts of general language."""
    lexicon = {"a": {"masking": {"strategy": "mslm", "mslm": {"terms": "lexicon", "lexicon": "terms.txt"}}}}
    for name, content in {
        "empty": b"",
        "blank": b"\n \n",
        "comments": b"# a\n#b",
        "not UTF-8": b"caff\xe8",
        "binary": bytes(range(256)),
    }.items():
        yield _case(ground, f"lexicon {name}", Refused("masking.mslm.lexicon"), {"terms.txt": content}, arms=lexicon)
    yield _case(ground, "lexicon missing", Refused("masking.mslm.lexicon"), {}, arms=lexicon)
    yield _case(ground, "lexicon is a folder", Refused("masking.mslm.lexicon"), {"terms.txt/x": b""}, arms=lexicon)
    yield _case(
        ground,
        "lexicon with escapes",
        Accepted("ok, "),
        {"terms.txt": f"feb\x1b[2Jbre\n{CANARY}".encode()},
        arms=lexicon,
    )
    general = {"a": {"masking": {"strategy": "mslm", "mslm": {"terms": "tficf"}}}}
    counts = {
        "w.csv": [
            b"",
            b"word\na\n",
            b"word,count\na,x\n",
            b"word,count\na,1.5\n",
            b"a,b\n1,2\n",
            b"word,count\n\xff,1\n",
            b'word,count\n"a,1',
            b"word,count\na,1,2\n",
            b"word,count\na,99999999999999999999\n",
            b"word,word,count\na,b,1\n",
        ],
        "w.tsv": [b"", b"word,count\na,1\n", b"word\tcount\na\t\tb\n"],
        "w.parquet": [
            b"",
            b"PAR1",
            _parquet({"word": ["a"]}),
            _parquet({"word": ["a"], "count": ["x"]}),
            _parquet({"word": [["a"]], "count": [1]}),
        ],
    }
    for path, contents in counts.items():
        for content in contents:
            changes = {"statistics__general_counts": path, "arms": general}
            yield _case(
                ground, f"{path} {content[:24]!r}", Refused("statistics.general_counts"), {path: content}, **changes
            )


def drawn_tables(ground: Ground) -> Iterator[Case]:
    """Tables by hypothesis: any header, any cells."""
    cell = st.text(max_size=12) | st.sampled_from(
        ["1", "0", "train", "fever", CANARY, "", "\x1b[2J", "a\nb", '"', "\x00"]
    )
    names = st.sampled_from(["note_id", "text", "patient", "label", "split", "task_id", "x", "", " "])
    table = st.lists(names, min_size=1, max_size=5).flatmap(
        lambda header: st.tuples(
            st.just(header), st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), max_size=5)
        )
    )
    for key in ("notes", "labels", "tasks"):
        for header, body in examples(table, 25):

            def write(folder: Path, header: list[str] = header, body: list[list[str]] = body, key: str = key) -> None:
                with (folder / "x.csv").open("w", newline="", errors="replace") as file:
                    csv.writer(file).writerows([header, *body])
                write_config(folder, **{f"data__{key}": "x.csv"})

            yield Case(f"{key} {header}", CHECK, Handled(), write, ground.project)
