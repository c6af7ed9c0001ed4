"""Expressions and templates without end are ended."""

from __future__ import annotations

import itertools
import threading
import unicodedata

import pytest

from raypipe.guard import limits

ENDLESS, TEXT = r"(a|aa)+$", "a" * 80 + "!"  # 2 ** 50 ways and more


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIMIT_S", 0.05)


def test_an_expression_without_end_is_ended() -> None:
    with pytest.raises(TimeoutError):
        limits.spans(ENDLESS, TEXT)
    with pytest.raises(TimeoutError):
        limits.fullmatch(ENDLESS, TEXT)


def test_others_are_those_of_re(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIMIT_S", 60)
    assert limits.spans(r"(?<=dott\. )\b[A-Z]\w+", "dott. Rossi e dott. Verdi") == [(6, 11), (20, 25)]
    assert limits.fullmatch(r"il (?P<a>\w+)(?P<b> x)?", "il polso") == {"a": "polso", "b": None}
    assert limits.fullmatch("a", "ab") is None
    with pytest.raises(ValueError, match="not a regular expression"):
        limits.compiled("(")


def test_an_expression_with_accents_of_two_characters_protects_what_it_names() -> None:
    pattern = unicodedata.normalize("NFD", "Niccolò")
    assert limits.spans(pattern, "dott. Niccolò Verdi") == [(6, 13)]


def test_work_without_end_is_ended_with_its_thread() -> None:
    before = threading.active_count()
    ended = threading.Event()

    def work() -> None:
        try:
            for _ in itertools.count():
                pass
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        limits.within_limit(work)
    assert ended.wait(60)
    assert threading.active_count() <= before + 1


def test_work_returns_and_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIMIT_S", 60)
    assert limits.within_limit(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        limits.within_limit(lambda: 1 // 0)
