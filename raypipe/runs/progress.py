"""What a command shows while it works: lines that stay, and how far each step in work has come.

On a terminal a bar for each step, which goes when the step is done; elsewhere, as in the log of a job, a line in
LOG_EVERY_S seconds. Nothing that is shown holds note text.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.table import Column
from rich.text import Text

from raypipe.guard import looking
from raypipe.guard.terminal import say

# How far a step has come: units done, units in all (None: nobody knows), and what else to say. None: not begun.
At = tuple[int, int | None, str]
Read = Callable[[], At | None]

LOG_EVERY_S, BAR_EVERY_S = 30.0, 0.5
BAR = 16  # columns of a terminal
LEAST_UNITS = 2  # of progress behind a rate: the first unit often takes longer than all others


@dataclass
class Pace:
    """Units per second, from the first units that were seen done: what was done before, another attempt did."""

    first: tuple[float, int] | None = None  # seconds and units
    last: tuple[float, int] | None = None

    def see(self, now: float, done: int) -> None:
        """Units are done by now."""
        if done and self.first is None:
            self.first = (now, done)
        if done and (self.last is None or done != self.last[1]):
            self.last = (now, done)

    @property
    def rate(self) -> float | None:
        """None while too little was seen."""
        if self.first is None or self.last is None:
            return None
        units, seconds = self.last[1] - self.first[1], self.last[0] - self.first[0]
        return units / seconds if units >= LEAST_UNITS and seconds > 0 else None


def silent(line: str) -> None:
    """In the place of a `Printer`, where nobody wants lines."""


def only_warnings(line: str) -> None:
    """In the place of a `Printer`, for a trial: its progress would mix with that of others, its warnings are rare."""
    if line.startswith("warning: "):
        say(line)


def said(at: At, unit: str, pace: Pace) -> str:
    """12/130 steps, 2 min 20 s left, 0.8 steps/s, loss 3.210."""
    done, total, detail = at
    if total is not None and done > total:
        total = None
    parts = [f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}"]
    if (rate := pace.rate) is not None:
        parts.append(f"{duration((total - done) / rate)} left" if total else "")
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s")
    parts.append(detail)
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """75 -> 1 min 15 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@dataclass(frozen=True)
class Printer:
    """Prints lines with the seconds since the command began, and follows steps."""

    began: float = field(default_factory=time.perf_counter)
    prefix: str = ""

    def __call__(self, line: str) -> None:
        say(f"[{time.perf_counter() - self.began:6.1f} s] {self.prefix}{line}")

    def named(self, name: str) -> Printer:
        """For one of several runs."""
        return replace(self, prefix=f"{self.prefix}{name}: ")

    @contextmanager
    def follow(self, name: str, unit: str, read: Read) -> Iterator[None]:
        """Show how far a step has come while the block runs; `read` is called now and then, by a thread."""
        show: Show = Bar(self.prefix + name) if sys.stdout.isatty() else Line(name, self)
        pace = Pace()

        def look() -> None:
            with suppress(OSError, ValueError):  # a file that goes or grows while it is looked at: the next look tells
                tick(show, unit, read, pace, time.perf_counter())

        try:
            with looking.every(show.every_s, look):
                yield
        finally:
            show.close()


def tick(show: Show, unit: str, read: Read, pace: Pace, now: float) -> None:
    """Look once, and show what there is."""
    if (at := read()) is not None:
        pace.see(now, at[0])
        show(at, said(at, unit, pace))


class Line:
    """For a log: a line if anything has changed."""

    every_s = LOG_EVERY_S

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say, self.done = name, say, 0

    def __call__(self, at: At, text: str) -> None:
        if at[0] > self.done:
            self.done = at[0]
            self.say(f"{self.name}: {text}")

    def close(self) -> None:
        """A line stays."""


class Bar:
    """For a terminal: a bar, beside those of other steps in work."""

    every_s = BAR_EVERY_S

    def __init__(self, name: str) -> None:
        self.name = name
        self.task: Any = None

    def __call__(self, at: At, text: str) -> None:
        done, total, _ = at
        total = None if total is None or done > total else total
        with _bars.lock:
            if self.task is None:
                self.task = _bars.add(self.name, text)
            _bars.display.update(self.task, completed=done, total=total, said=text)

    def close(self) -> None:
        """The bar goes, and with the last one the display: it would stand in the way of lines."""
        if self.task is not None:
            _bars.close(self.task)


Show = Line | Bar


class _Said(TextColumn):
    """What else is said beside a bar, on one line."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["said"], no_wrap=True, overflow="ellipsis")


class _Bars:
    """A terminal has one display for all bars."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.display: Any = None
        self.n_open = 0

    def add(self, name: str, text: str) -> Any:
        """A new bar."""

        if self.display is None:
            # where there is no room for all, the end of the text goes
            described = TextColumn("{task.description}", table_column=Column(no_wrap=True))
            bar = BarColumn(bar_width=BAR, table_column=Column(no_wrap=True))
            self.display = Progress(described, bar, _Said(""), transient=True)
            self.display.start()
        self.n_open += 1
        return self.display.add_task(name, said=text, total=None)

    def close(self, task: Any) -> None:
        """Of one bar."""
        with self.lock:
            self.display.remove_task(task)
            self.n_open -= 1
            if not self.n_open:
                self.display.stop()
                self.display = None


_bars = _Bars()
