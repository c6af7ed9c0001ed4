"""The two ways in which input can be wrong, and the exit codes of every command.

`InputError`: the run cannot start. It holds every problem, one line each, with the place and the fix.
`RowError`: one note cannot be processed. It becomes a dead letter with a code, and the run goes on.
Neither ever quotes note text: messages reach logs, and logs are not a place for patients.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace


class ExitCode(enum.IntEnum):
    """What a command returns to the shell."""

    OK = 0
    CONFIG = 2  # config, tasks, labels or model do not fit together; nothing was started
    DATA = 3  # more dead letters than data.max_error_rate allows
    PARTIAL = 4  # some shards or trials failed; running the same command again goes on
    CLUSTER = 5  # no cluster, no token, not enough resources
    DEFECT = 6  # something that raypipe did not foresee; its type and place are said
    STORAGE = 7  # the disk is full, read-only or not permitted; running the same command again goes on


class Code(enum.StrEnum):
    """Why a row became a dead letter."""

    NULL = "E_NULL"  # text is null
    TYPE = "E_TYPE"  # text is not a string
    ID = "E_ID"  # note id is null, empty or over 512 characters
    UTF8 = "E_UTF8"  # text is not valid UTF-8, or holds lone surrogates
    EMPTY = "E_EMPTY"  # no word in the text
    TOO_BIG = "E_TOO_BIG"  # more than data.max_chars characters
    NO_ROOM = "E_NO_ROOM"  # the question alone fills the context
    NONFINITE = "E_NONFINITE"  # relevance is NaN or infinite, in float32 too
    OOM = "E_OOM"  # out of memory with this note alone
    NO_SPAN = "E_NO_SPAN"  # nothing in the note may be masked
    SENTINEL = "E_SENTINEL"  # the note already contains a mask sentinel
    MODEL = "E_MODEL"  # the model failed on this note alone
    PATTERN = "E_PATTERN"  # an expression of masking.phi_patterns or data.identifiers takes too long on this note
    SPANS = "E_SPANS"  # its annotated spans cannot be read, so that data.placeholders would not replace them
    HELD_OUT = "HELD_OUT"  # no error: a dev or test note, or too close to one, so self-supervision must not see it
    NOT_SAMPLED = "NOT_SAMPLED"  # no error: beyond data.max_unlabelled, or set aside for pretraining


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input. `where` is `file:line: field` or the nearest to it."""

    where: str
    what: str
    exit_code: ExitCode = ExitCode.CONFIG  # of a command that it ends; of several problems', the highest

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class InputError(Exception):
    """Everything that is wrong before a run starts, all at once."""

    def __init__(self, problems: Sequence[Problem] | str, exit_code: ExitCode = ExitCode.CONFIG) -> None:
        listed = [Problem("", problems)] if isinstance(problems, str) else problems
        self.problems = [replace(problem, exit_code=max(problem.exit_code, exit_code)) for problem in listed]
        self.exit_code = max((problem.exit_code for problem in self.problems), default=exit_code)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class QuietError(RuntimeError):
    """Something failed; the message holds no note text."""


class RowError(Exception):
    """One note that cannot be processed. Holds a code only."""

    def __init__(self, code: Code) -> None:
        self.code = code
        super().__init__(code.value)
