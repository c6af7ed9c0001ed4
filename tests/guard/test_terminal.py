"""What is printed cannot drive a terminal."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

import pytest

from raypipe.guard import terminal
from raypipe.guard.terminal import printable, say

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


@pytest.mark.parametrize("uri", ["s3://a:SEKRET@b/x", "s3:/a:SEKRET@b/x", "s3://a%3aSEKRET@b", "https://u:SEKRET/2@h"])
def test_no_credential_is_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"error: {uri}: no such file", is_error=True)
    assert "SEKRET" not in capsys.readouterr().err


def test_a_terminal_of_another_encoding_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say("è lì")
    assert raw.getvalue() == b"? l?\n"


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
