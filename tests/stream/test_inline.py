"""This process as the one worker: how many threads it takes."""

from __future__ import annotations

import os

import pytest

from raypipe.errors import InputError
from raypipe.stream.inline import Inline


@pytest.mark.parametrize(
    ("given", "threads"), [("4", 4), ("4,2", 4), (" 3 ", 3), ("", os.cpu_count()), (None, os.cpu_count())]
)
def test_as_many_threads_as_it_was_given(monkeypatch: pytest.MonkeyPatch, given: str | None, threads: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert Inline.here(False).threads == threads


@pytest.mark.parametrize("given", ["many", "0", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_a_line(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    with pytest.raises(InputError, match=f"^OMP_NUM_THREADS is '{given}': set it to a number of threads"):
        Inline.here(False)
