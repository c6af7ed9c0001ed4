"""Tables as files of every kind, what may befall a file, and cases of a project with other files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bad_input.case import Case, Outcome
from tests.bad_input.ground import NOTES, Ground, write_config

CHECK = ("check", "--config", "c.yaml")
COLUMNS = {name: [note[name] for note in NOTES] for name in NOTES[0]}
EXTENSION = pa.field("text", pa.large_binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})


def as_csv(**columns: list[Any]) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in [columns, *zip(*columns.values(), strict=True)]).encode()


def as_jsonl(table: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def as_parquet(table: pa.Table | dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), sink)
    return sink.getvalue().to_pybytes()


GOOD = {
    "parquet": as_parquet(COLUMNS),
    "csv": (
        "note_id,text,patient\n" + "".join(f'{n["note_id"]},"{n["text"]}",{n["patient"]}\n' for n in NOTES)
    ).encode(),
    "jsonl": as_jsonl(NOTES),
}
BYTES: dict[str, Callable[[bytes], bytes]] = {  # what may befall a file
    "empty": lambda b: b"",
    "cut": lambda b: b[: len(b) // 2],
    "without its end": lambda b: b[:-9],
    "zeros": lambda b: bytes(len(b)),
    "another magic": lambda b: b"PAR2" + b[4:],
    "as gzip": lambda b: gzip.compress(b, mtime=0),
    "a page": lambda b: b"<html><body>404</body></html>",
    "UTF-16": lambda b: b.decode(errors="replace").encode("utf-16"),
    "flipped": lambda b: (
        b[: len(b) // 3] + bytes(255 - x for x in b[len(b) // 3 : len(b) // 3 + 40]) + b[len(b) // 3 + 40 :]
    ),
}
MAY_BE_READ = {"flipped", "another magic"}  # Arrow looks at the other end of a Parquet file


def case_of(
    ground: Ground, name: str, outcome: Outcome, files: dict[str, bytes], command: Any = CHECK, **changes: Any
) -> Case:
    def change(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        write_config(folder, **changes)

    return Case(name, command, outcome, change, ground.project)
