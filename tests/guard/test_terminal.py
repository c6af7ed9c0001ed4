"""What is printed cannot drive a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from raypipe.guard import terminal
from raypipe.guard.terminal import descriptor_of_errors, printable, say

HOSTILE = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\x7f",
    "\x00",
    "\r",
    "\u202e",
    "\u2066",
    "\u2028",
    "\ud800",
    "\x85",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_is_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"note {text} è lì")
    shown = capsys.readouterr().out.removesuffix("\n")
    assert all(c.isprintable() for c in shown)
    assert len(shown) == len(f"note {text} è lì"), "one for one: offsets stay"
    assert shown.endswith(" è lì")


def test_other_text_stays() -> None:
    for text in ("è già 37,5 °C\n\tsì", "日本", "שלום \u200f", "🙂", "soft\u00adhyphen"):
        assert printable(text) == text


@pytest.mark.parametrize(
    "uri", ["s3://a:SEKRET@b/x", "s3:/a:SEKRET@b/x", "s3://a%3aSEKRET@b", "https://u:SEKRET/2@h", "https://SEKRET@h/x"]
)
def test_no_credential_is_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"error: {uri}: no such file", is_error=True)
    assert "SEKRET" not in capsys.readouterr().err


def test_a_terminal_of_another_encoding_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say("è lì")
    assert raw.getvalue() == b"? l?\n"


COMMAND = """
import os, subprocess, sys
from raypipe.guard import command
from raypipe.guard.terminal import descriptor_of_errors, say
PROGRAM = [sys.executable, "-c", "import sys; print('of a program', file=sys.stderr)"]
def work():
    os.write(2, b"[2026-11-29 14:30:23,251 E 7 7] core_worker.cc:2465: nato a Pavia")  # as C++ and Rust do
    say("of ours, è", is_error=True)
    subprocess.run(PROGRAM, stderr=descriptor_of_errors())
    print("shown")
for _ in range(2):
    command.run(work)
os.write(2, b"when the process ends")
"""


def test_what_a_library_writes_itself_does_not_reach_the_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True)
    assert done.stdout == "shown\n" * 2
    assert done.stderr == "of ours, è\nof a program\n" * 2, "in this order, and nothing twice"


def test_where_errors_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert descriptor_of_errors() == stream.fileno()
    for closed in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stderr", closed)
        assert descriptor_of_errors() == 2


def test_a_reader_who_pauses_is_seen() -> None:
    """A pipe that is full, until somebody reads it; a file never is."""
    stdout, (read, write) = os.dup(1), os.pipe()
    try:
        os.dup2(write, 1)
        os.set_blocking(1, False)
        assert not terminal.is_paused()
        with suppress(BlockingIOError):
            while True:
                os.write(1, bytes(4096))
        assert terminal.is_paused()
        os.read(read, 1 << 20)
        assert not terminal.is_paused()
    finally:
        os.dup2(stdout, 1)
        for descriptor in (stdout, read, write):
            os.close(descriptor)
