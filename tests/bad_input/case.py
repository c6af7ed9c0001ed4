"""A wrong input, the command that meets it, and what must come of it. Commands run in this process, under the guard."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer

from raypipe import cli, rows
from raypipe.errors import ExitCode

CANARY = "Xyzzyrossi"  # stands in every note, label, split, id, group, tag and credential that is made here
RUN_AT = "made"  # where a finished run lies while a case works with it, and where it was made: beside `Case.of`
LIMIT_S = 120  # of a core, for one command; the slowest takes a few


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return self.err.splitlines()


@dataclass(frozen=True)
class Refused:
    """The command ends with this exit code; every line on stderr is an error, and one of them names the place."""

    place: str
    code: int = ExitCode.CONFIG

    def fault(self, result: Result) -> str:
        """How the result differs from what is stated; empty if it does not."""
        if result.code != self.code:
            return f"exit code {result.code}, not {self.code:d}"
        place = self.place.replace("{}", str(result.folder))
        return "" if any(place in line for line in result.errors) else f"no line names {place}"


@dataclass(frozen=True)
class Accepted:
    """The command does its work, and says this."""

    says: str = ""

    def fault(self, result: Result) -> str:
        """As above."""
        if result.code != ExitCode.OK:
            return f"exit code {result.code}, not 0"
        return "" if self.says in result.out else f"does not say {self.says!r}"


@dataclass(frozen=True)
class Handled:
    """Of random input: done, or refused with a line. Never a defect."""

    place: str = ""  # if it is refused
    codes: tuple[int, ...] = (ExitCode.OK, ExitCode.CONFIG, ExitCode.DATA)

    def fault(self, result: Result) -> str:
        """As above."""
        if result.code not in self.codes:
            return f"exit code {result.code}, not one of {', '.join(map(str, map(int, self.codes)))}"
        return Refused(self.place, result.code).fault(result) if result.code else ""


@dataclass(frozen=True)
class DeadLetter:
    """The note of this id is among the rows of the step `mask` with this code; None: it is masked."""

    note_id: str
    error: str | None

    def fault(self, result: Result) -> str:
        """As above."""
        if result.code != ExitCode.OK:
            return f"exit code {result.code}, not 0"
        table = rows.read(result.folder / "runs/bad/mask/data", ["note_id", "error"]).to_pylist()
        codes = [row["error"] for row in table if row["note_id"] == self.note_id]
        return "" if codes == [self.error] else f"is {codes}, not {self.error}"


Outcome = Refused | Accepted | Handled | DeadLetter


@dataclass(frozen=True)
class Case:
    """`{}` in arguments and places stands for the folder that the case has for itself."""

    name: str
    arguments: Sequence[str]
    outcome: Outcome
    change: Callable[[Path], object] = lambda folder: None  # breaks something in the folder
    of: Path | None = None  # what the folder is a copy of; None: it is empty
    shows_notes: bool = False  # that is what the command is for
    shared: dict[str, Any] = field(default_factory=dict)  # cases with one dict: the command runs once for all of them

    def judged(self, scratch: Path) -> Verdict:
        """Run the command, and compare."""
        if "result" not in self.shared:
            self.shared["result"] = self._run(scratch)
        result: Result = self.shared["result"]
        shown = result.err if self.shows_notes else result.out + result.err
        return Verdict(self.name, _form(result) or self.outcome.fault(result), CANARY in shown, result)

    def _run(self, scratch: Path) -> Result:
        if self.of is not None and (self.of / "runs").is_dir():
            folder = self.of.parent / RUN_AT
        else:
            folder = Path(tempfile.mkdtemp(dir=scratch))
        if self.of is not None:
            shutil.copytree(self.of, folder, dirs_exist_ok=True)
        self.change(folder)
        result = run([argument.replace("{}", str(folder)) for argument in self.arguments], folder)
        if not isinstance(self.outcome, DeadLetter):
            shutil.rmtree(folder, ignore_errors=True)
        return result


@dataclass(frozen=True)
class Verdict:
    """What came of a case."""

    name: str
    fault: str  # empty: as stated
    leaks: bool
    result: Result


def _drives_a_terminal(c: str) -> bool:
    """Control characters, halves of characters, separators of lines, and what turns the direction of a text."""
    kind, direction = unicodedata.category(c), unicodedata.bidirectional(c)
    turns = direction in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return c not in "\n\t" and (kind in {"Cc", "Cs", "Zl", "Zp"} or turns)


def _form(result: Result) -> str:
    """What no output may be: a traceback, a control character, a word on stderr that is no error."""
    text = result.out + result.err
    if "Traceback (most recent call last)" in text:
        return "a traceback"
    if any(_drives_a_terminal(c) for c in text):
        return "a control character"
    if result.code and not result.errors:
        return f"exit code {result.code} without a line"
    if result.code and not all(line.startswith("error: ") for line in result.errors):
        return "a line on stderr that is no error"
    return ""


def run(arguments: Sequence[str], folder: Path) -> Result:
    """A command line, as the shell would start it in this folder."""
    with _once(), _captured() as texts, contextlib.chdir(folder), _time_limit():
        try:
            cli.main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # would be a traceback and exit code 1
            traceback.print_exc()
            code = 1
    return Result(code, *texts, folder)


# What does not change from one command to the next in this process, and takes most of the time of a refusal
_COMMANDS, _VERSION = functools.cache(typer.main.get_command), functools.cache(importlib.metadata.version)


@contextlib.contextmanager
def _once() -> Iterator[None]:
    with patch.object(typer.main, "get_command", _COMMANDS), patch.object(importlib.metadata, "version", _VERSION):
        yield


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """stdout and stderr, also what libraries in C write to their descriptors."""
    texts: list[str] = []
    plain = sys.stdout, sys.stderr
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        saved = [os.dup(number) for number in (1, 2)]
        try:
            for number, file in ((1, out), (2, err)):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = out, err
            yield texts
        finally:
            sys.stdout, sys.stderr = plain
            for number, file in zip((1, 2), (out, err), strict=True):
                file.flush()
                os.dup2(saved[number - 1], number)
                os.close(saved[number - 1])
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
