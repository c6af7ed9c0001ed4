"""What stands beside notes and labels: annotated spans and tags, terms, word counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.bad_input.case import CANARY, Accepted, Case, Refused
from tests.bad_input.files import BYTES, as_jsonl, as_parquet, case_of
from tests.bad_input.ground import NOTES, TASKS, Ground
from tests.bad_input.labels import TASK


def _with_cells(name: str, cell: Any) -> bytes:
    return as_jsonl([note | {name: cell if i == 0 else None} for i, note in enumerate(NOTES)])


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
        yield case_of(
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
        yield case_of(
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
    files: dict[str, bytes] = {f"line {record!r:.50}": as_jsonl([record]) for record in of_line}
    files |= {f"task {record!r:.90}": json.dumps([record]).encode() for record in of_task}
    files |= {
        "twice": as_jsonl([line, line]),
        "deep": b"[" * 100_000,
        "empty": b"",
        "an empty list": b"[]",
        "not UTF-8": b"\xff" * 9,
    }
    files |= {f"{what}": change(as_jsonl([line])) for what, change in BYTES.items() if what != "without its end"}
    for name, content in files.items():
        command = ("import-spans", "s.json", "--out", "out.parquet")
        yield case_of(ground, f"import {name}", Refused("s.json"), {"s.json": content}, command)


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
        yield case_of(ground, f"lexicon {name}", Refused("masking.mslm.lexicon"), {"terms.txt": content}, arms=lexicon)
    yield case_of(ground, "lexicon missing", Refused("masking.mslm.lexicon"), {}, arms=lexicon)
    yield case_of(ground, "lexicon is a folder", Refused("masking.mslm.lexicon"), {"terms.txt/x": b""}, arms=lexicon)
    yield case_of(
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
            as_parquet({"word": ["a"]}),
            as_parquet({"word": ["a"], "count": ["x"]}),
            as_parquet({"word": [["a"]], "count": [1]}),
        ],
    }
    for path, contents in counts.items():
        for content in contents:
            changes = {"statistics__general_counts": path, "arms": general}
            yield case_of(
                ground, f"{path} {content[:24]!r}", Refused("statistics.general_counts"), {path: content}, **changes
            )
