"""The one place where lines are printed: what they hold can neither drive a terminal nor show a credential.

Ids, labels, names of files and arms, values of a config and notes may hold anything.
"""

from __future__ import annotations

import os
import re
import select
import sys

_FORMATS = range(0x202A, 0x202F), range(0x2066, 0x206A)  # overrides that let a text read as another: bidi controls
STDERR = 2
_HARMLESS = "\n\t"
_CREDENTIAL = re.compile(
    r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]*:/{1,3})(?:[^\s/@:]*(?::|%3[aA])[^\s@]*|[^\s/@]+)@"
)  # `scheme://user:password@`, and a token alone; a long run of letters is looked at once


def printable(text: str) -> str:
    """Control characters, bidi overrides and lone surrogates become U+FFFD, one for one: character offsets stay."""
    return text if text.isprintable() else "".join(c if _is_plain(c) else "\ufffd" for c in text)


def _is_plain(c: str) -> bool:
    n = ord(c)
    is_control = n < 0x20 or 0x7F <= n <= 0x9F or n in (0x2028, 0x2029)  # C0, DEL, C1, separators of lines
    return c in _HARMLESS or not (is_control or 0xD800 <= n <= 0xDFFF or any(n in formats for formats in _FORMATS))


def say(text: object, is_error: bool = False) -> None:
    """Print lines; errors go to stderr."""
    line = printable(_CREDENTIAL.sub(r"\1***@", str(text)))
    stream = sys.stderr if is_error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # a terminal of another encoding shows a question mark instead of ending the command
    print(line.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def close_to_libraries() -> None:
    """From now on only lines of this program reach the terminal as errors; what libraries write goes nowhere.

    Those in C++ and Rust write to the descriptor itself, where no hook of Python can mend it: Ray repeats entries of
    its log on stderr, and a panic quotes the text on which it happened.
    """
    if _descriptor() == STDERR:
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr.flush()
        sys.stderr = os.fdopen(os.dup(STDERR), "w", buffering=1, encoding=encoding, errors=errors)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)


def descriptor_of_errors() -> int:
    """Where errors go, for what cannot print: a handler of signals, a program that is started."""
    own = _descriptor()
    return STDERR if own is None else own


def _descriptor() -> int | None:
    """None where there is no `sys.stderr`, or a stand-in (a notebook's, a test's)."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):
        return None


def is_paused() -> bool:
    """Does a reader of our lines make us wait, such as `less`, or a terminal after ctrl-S?"""
    try:
        return len(select.select([], [1, descriptor_of_errors()], [], 0)[1]) < 2  # there is always room in a file
    except OSError:  # one of them is closed
        return False
