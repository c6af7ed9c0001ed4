"""Parts of a job that do not need one another (arms, cells): one that fails does not stop the others.

In the end all that failed is told at once, with exit code 4. Trouble that the next part would meet, too (a full disk, a
lost cluster), ends the job at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.guard.command import TRACEBACK
from raypipe.guard.quiet import without_text

OF_ALL = (ExitCode.STORAGE, ExitCode.CLUSTER)


@dataclass
class Failures:
    """What failed so far."""

    errors: dict[str, Exception] = field(default_factory=dict)  # by the name of the part

    @contextmanager
    def noted(self, part: str, say: Callable[[str], None]) -> Iterator[None]:
        """What is raised in here fails this part alone, and is said at once."""
        try:
            yield
        except Exception as error:
            self.note(part, error)
            say(f"{part} failed; the others go on")

    def note(self, part: str, error: Exception) -> None:
        """This part has failed. Raises what has to end the job."""
        failure = without_text(error)
        if isinstance(failure, InputError) and failure.exit_code in OF_ALL:
            raise failure
        self.errors[part] = error

    def tell(self, hint: str) -> None:
        """Raise `InputError` with every problem, once, and `hint`, if a part has failed."""
        parts: dict[Problem, list[str]] = {}
        for part, error in self.errors.items():
            for problem in _problems(error):
                parts.setdefault(problem, []).append(part)
        if parts:
            problems = [
                Problem(": ".join(filter(None, [", ".join(names), problem.where])), problem.what)
                for problem, names in parts.items()
            ]
            first = next(iter(self.errors.values()))
            raise InputError([*problems, Problem("", hint)], ExitCode.PARTIAL) from first


def _problems(error: Exception) -> list[Problem]:
    failure = without_text(error)
    if isinstance(failure, InputError):
        return failure.problems
    return [Problem("", f"{failure}; {TRACEBACK}=1 shows the way there")]
