"""Copies of tables: every cell as it was, in UTF-8, with numbers where they are wished for."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.notes import copies

ROWS = [["Età", "Nota"], ["80", "è già\r\nstato; 37,5 °C"], ["", 'dice "no" — €']]


def _written(path: Path, encoding: str, delimiter: str = ";") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(ROWS)
    return path


def _read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8", None])
def test_every_cell_arrives_in_utf8(tmp_path: Path, encoding: str | None) -> None:
    table = _written(tmp_path / "n.csv", encoding or "utf-8-sig")
    copies.write(str(table), "--notes", tmp_path / "out.csv", encoding, is_numbered=False)
    assert _read(tmp_path / "out.csv") == ROWS
    copies.write(str(table), "--notes", tmp_path / "out.csv", encoding, is_numbered=True)
    assert _read(tmp_path / "out.csv") == [["row_number", *ROWS[0]], ["1", *ROWS[1]], ["2", *ROWS[2]]]


def test_numbers_go_on_over_several_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    _written(tmp_path / "in/a.csv", "cp1252")
    (tmp_path / "in/b.csv.gz").write_bytes(gzip.compress(_written(tmp_path / "b.csv", "cp1252", ",").read_bytes()))
    copies.write(str(tmp_path / "in"), "--notes", tmp_path / "out.csv", "cp1252", is_numbered=True)
    assert [row[0] for row in _read(tmp_path / "out.csv")] == ["row_number", "1", "2", "3", "4"]
    (tmp_path / "in/c.csv").write_text("Nota,Età\nè,1\n")
    with pytest.raises(InputError, match=r"c\.csv: its columns differ"):
        copies.write(str(tmp_path / "in"), "--notes", tmp_path / "out.csv", "cp1252", is_numbered=True)


def test_bytes_that_are_no_text_are_not_made_up(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(b"a,b\n\x81,\xe8\n")  # no character of cp1252
    copies.write(str(tmp_path / "n.csv"), "--notes", tmp_path / "out.csv", "cp1252", is_numbered=False)
    assert (tmp_path / "out.csv").read_bytes() == b"a,b\r\n\x81,\xc3\xa8\r\n"


def test_what_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="only such a one is copied"):
        copies.write(str(tmp_path / "n.jsonl"), "--notes", tmp_path / "out.csv", "cp1252", is_numbered=False)
    for name in ("excel", "", "hex", "\0"):
        with pytest.raises(InputError, match="is no encoding; Excel's is cp1252"):
            copies.write(str(_written(tmp_path / "n.csv", "utf-8")), "--notes", tmp_path / "out.csv", name, False)
    (tmp_path / "n.csv").write_bytes("Età\n1\n".encode("utf-16")[:-1])
    with pytest.raises(InputError, match="cannot be read"):
        copies.write(str(tmp_path / "n.csv"), "--notes", tmp_path / "out.csv", "utf-16", is_numbered=False)
