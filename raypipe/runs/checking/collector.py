"""All problems at once: a part of the check that fails does not end it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from raypipe.errors import InputError, Problem

Result = TypeVar("Result")


class Collector:
    """Runs a part of the check; its problems join the others instead of ending the check."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __call__(self, part: Callable[[], Result]) -> Result | None:
        try:
            return part()
        except InputError as error:
            self.problems += error.problems
            return None
