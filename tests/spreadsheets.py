"""What a spreadsheet would make of a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path


def formulas(path: Path) -> list[str]:
    """Cells that a spreadsheet would compute instead of show: text that begins with one of its signs."""
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert cells, "there is a table"
    return [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(cell)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
