"""Tables of plain text: as wide as the terminal, and nothing is cut."""

from __future__ import annotations

from os import terminal_size

import pytest

from raypipe.guard import tables

LINES = [
    ["task", "kind", "labels"],
    ["fever", "binary", "yes: 12, no: 30"],
    ["a_long_task_of_a_ward" * 3, "x", "y " * 30],
]


@pytest.mark.parametrize(("terminal", "room"), [("200", 100), ("80", 80), ("20", tables.NARROWEST)])
def test_as_wide_as_the_terminal_and_nothing_is_cut(terminal: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", terminal)
    table = tables.align(LINES)
    assert max(map(len, table.splitlines())) <= room
    assert "fever" in table
    assert table.count("y") == sum(cell.count("y") for line in LINES for cell in line)


def test_a_log_has_lines_of_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(tables.shutil, "get_terminal_size", terminal_size)
    assert tables.columns() == tables.WIDTH
