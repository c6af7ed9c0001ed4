"""Tables of plain text that are as wide as the terminal at most."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import zip_longest

from raypipe.guard.terminal import printable

WIDTH = 100  # of a line in a log, and at most of one on a terminal
NARROWEST = 60  # a terminal narrower than this breaks the lines itself
LEAST = 12  # letters of a column that is broken into several lines


def columns() -> int:
    """How wide a line may be."""
    return min(WIDTH, max(NARROWEST, shutil.get_terminal_size((WIDTH, 0)).columns))


def one_line(text: str) -> str:
    """A name must not break the table."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def align(lines: Sequence[Sequence[str]]) -> str:
    """First and last column to the left, the others to the right; a rule below the head.

    Where that is wider than a line may be, heads that are wider than what they stand over go over several lines, then
    the cells of the widest columns: nothing is cut.
    """
    lines = [[one_line(cell) for cell in line] for line in lines]
    of_columns, room = list(zip(*lines, strict=True)), columns()
    widths = [max(map(len, column)) for column in of_columns]
    least = [max(LEAST, *map(len, column[1:])) for column in of_columns]
    for floor in (least, [LEAST] * len(widths)):
        while (excess := sum(widths) + 2 * (len(widths) - 1) - room) > 0:
            i = max(range(len(widths)), key=lambda i: (widths[i] > floor[i], widths[i]))
            if widths[i] <= floor[i]:
                break
            widths[i] = max(floor[i], widths[i] - excess)
    head, *rows = [_row(line, widths) for line in lines]
    return "\n".join([*head, "-" * max(map(len, head)), *(line for row in rows for line in row)])


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The lines of one row."""
    parts = [_broken(cell, width) for cell, width in zip(cells, widths, strict=True)]
    outer = {0, len(widths) - 1}
    return [
        "  ".join(
            cell.ljust(width) if i in outer else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]


def _broken(cell: str, width: int) -> list[str]:
    """A cell as lines, broken at spaces, else behind an underscore, else anywhere."""
    if len(cell) <= width:
        return [cell]
    at = cell.rfind(" ", 0, width + 1)
    if at <= 0:
        at = (cell.rfind("_", 0, width) + 1) or width
    return [cell[:at].rstrip(), *_broken(cell[at:].lstrip(), width)]
