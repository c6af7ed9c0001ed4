"""What a reader may copy out of README and docs/: commands, Python, YAML; each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]  # README's commands come first
EXPERIMENTS = sorted((REPOSITORY / "docs/experiments").glob("*.md"))
PROGRAMS = "raypipe|python3?|ray|make|export|pip|docker"
COMMAND = re.compile(rf"(?:{PROGRAMS}) ")
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.S | re.M)
INDENTED = re.compile(rf"^    (?:(?:{PROGRAMS}) .*(?:\\\n.*)*\n)+(?:    .*\n)*", re.M)
IN_A_SENTENCE = re.compile(rf"`((?:{PROGRAMS}) [^`]+)`")


@dataclass(frozen=True)
class Block:
    """One stretch of text that is not prose."""

    page: str  # relative to the repository
    line: int
    language: str  # python, yaml; commands; empty: a drawing, a listing, what a command printed
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its command lines, without comments; a line that goes on after a backslash is one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in lines if COMMAND.match(line)]


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, and indented ones that begin with a command, in the order of the page."""
    return sorted(_blocks(page), key=lambda block: block.line)


def _blocks(page: Path) -> Iterator[Block]:
    name, text = str(page.relative_to(REPOSITORY)), page.read_text()
    for match in FENCED.finditer(text):
        inner = re.sub(f"^{match[1]}", "", match[3], flags=re.M)
        is_command = not match[2] and COMMAND.match(inner)
        yield Block(name, _line(text, match), "commands" if is_command else match[2], inner)
    prose = FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in INDENTED.finditer(prose):
        yield Block(name, _line(prose, match), "commands", re.sub("^    ", "", match[0], flags=re.M))


def in_sentences(page: Path) -> list[tuple[str, str]]:
    """(place, command) of what stands between backticks in the prose; it may be a part of a command line."""
    name = page.relative_to(REPOSITORY)
    prose = FENCED.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
    found = IN_A_SENTENCE.finditer(prose)
    return [(f"{name}:{_line(prose, match)}", re.sub(r"\s+", " ", match[1])) for match in found]


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1
