"""Notes: files that are broken or not what they should be, single notes, and tables that hypothesis draws."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from raypipe.errors import Code
from tests.bad_input.case import CANARY, Accepted, Case, DeadLetter, Handled, Outcome, Refused
from tests.bad_input.configs import examples
from tests.bad_input.files import (
    BYTES,
    CHECK,
    COLUMNS,
    EXTENSION,
    GOOD,
    MAY_BE_READ,
    as_csv,
    as_jsonl,
    as_parquet,
    case_of,
)
from tests.bad_input.ground import NOTES, Ground, write_config

FILES: dict[str, tuple[str, bytes, Outcome]] = {  # name of the file, content, outcome
    "no column text": ("n.csv", as_csv(note_id=["a"], testo=[CANARY]), Refused("has no column 'text'")),
    "no column id": ("n.csv", as_csv(text=[CANARY]), Refused("data.columns.note_id: ")),
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
    "no row": ("n.parquet", as_parquet(pa.table(COLUMNS)[:0]), Refused("holds no note")),
    "parquet, text twice": (
        "n.parquet",
        as_parquet(pa.table([["a"], [CANARY], ["c"], ["d"]], ["note_id", "text", "text", "patient"])),
        Refused("has the column 'text' twice"),
    ),
    "numbers": (
        "n.parquet",
        as_parquet(COLUMNS | {"text": list(range(24))}),
        Refused("column 'text' holds int64, not text"),
    ),
    "bytes": (
        "n.parquet",
        as_parquet(COLUMNS | {"text": [CANARY.encode()] * 24}),
        Refused("column 'text' holds binary"),
    ),
    "lists": ("n.parquet", as_parquet(COLUMNS | {"text": [[CANARY]] * 24}), Refused("column 'text' holds list<")),
    "structs": (
        "n.parquet",
        as_parquet(COLUMNS | {"text": [{"a": CANARY}] * 24}),
        Refused("column 'text' holds struct<"),
    ),
    "nulls": ("n.parquet", as_parquet(COLUMNS | {"text": pa.nulls(24)}), Refused("can be used (E_NULL)")),
    "fractional ids": (
        "n.parquet",
        as_parquet(COLUMNS | {"note_id": [i / 2 for i in range(24)]}),
        Refused("data.columns.note_id"),
    ),
    "null ids": ("n.parquet", as_parquet(COLUMNS | {"note_id": pa.nulls(24)}), Refused("data")),
    "an id twice": ("n.jsonl", as_jsonl([NOTES[0], *NOTES]), Refused("1 note ids occur more than once")),
    "other ids": (
        "n.jsonl",
        as_jsonl([{**n, "note_id": f"{CANARY}{i}"} for i, n in enumerate(NOTES)]),
        Refused("labelled notes are not among the notes"),
    ),
    "one patient": (
        "n.jsonl",
        as_jsonl([{**n, "patient": CANARY} for n in NOTES]),
        Refused("have notes in two splits"),
    ),
    "an extension type": (
        "n.parquet",
        as_parquet(
            pa.table(
                {"note_id": ["a"], "text": [CANARY.encode()], "patient": ["p"]},
                schema=pa.schema([("note_id", pa.string()), EXTENSION, ("patient", pa.string())]),
            )
        ),
        Refused("Arrow extension type"),
    ),
    "lines that are no JSON": ("n.jsonl", f"{CANARY}\n".encode() * 24, Refused("data.notes")),
    "lists in place of records": ("n.jsonl", f'["{CANARY}"]\n'.encode() * 24, Refused("data.notes")),
    "other keys": ("n.jsonl", as_jsonl([{"a": CANARY}] * 24), Refused("data.notes")),
    "a spreadsheet": ("n.xlsx", b"PK\x03\x04" + CANARY.encode(), Refused("data.notes")),
    "a pickle": ("n.pkl", b"\x80\x04cos\nsystem\n.", Refused("data.notes")),
    "no ending": ("notes", GOOD["csv"], Refused("data.notes")),
    "an empty folder": ("folder/.hidden", b"", Refused("data.notes")),
}


def files_of_notes(ground: Ground) -> Iterator[Case]:
    """Files of notes that are broken, or not what they should be."""
    for kind, good in GOOD.items():
        yield case_of(ground, f"{kind} as it is", Accepted("ok, "), {f"n.{kind}": good}, data__notes=f"n.{kind}")
        for what, change in BYTES.items():
            for command in (CHECK, ("plan", "--config", "c.yaml")):
                # of JSONL and CSV, some rows may be as they were; nothing of them may be a defect
                outcome = (
                    Handled() if kind != "parquet" or what in MAY_BE_READ else Refused(f"n.{kind}: cannot be read")
                )
                yield case_of(
                    ground,
                    f"{command[0]} {kind} {what}",
                    outcome,
                    {f"n.{kind}": change(good)},
                    command,
                    data__notes=f"n.{kind}",
                )
    for name, (path, content, outcome) in FILES.items():
        place = path.split("/")[0] if "/" in path else path
        yield case_of(ground, name, outcome, {path: content}, data__notes=place)


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
    content = GOOD["jsonl"] + as_jsonl(table)
    changes = {
        "data__notes": "n.jsonl",
        "data__max_chars": TOO_BIG,
        "arms": {"a": {"masking": {"strategy": "random_word"}}},
    }
    shared: dict[str, Any] = {}
    for i, (text, code) in enumerate(texts):
        case = case_of(
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
