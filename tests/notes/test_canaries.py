"""Canaries: how many, where, and what a note with one looks like."""

from __future__ import annotations

from itertools import chain

import pyarrow as pa
import pytest

from raypipe.errors import InputError
from raypipe.notes import canaries
from raypipe.settings.config import Canaries

SETTINGS = Canaries(copies=(0, 1, 3), each=2, secret="7-##")


def test_every_secret_of_a_form_is_a_candidate() -> None:
    assert canaries.candidates("7{}-##")[:3] == ["7{}-00", "7{}-01", "7{}-02"]
    assert len(set(canaries.candidates("7-##"))) == 100


def test_each_canary_has_its_own_person_and_secret() -> None:
    drawn = canaries.drawn(SETTINGS)
    assert [canary.copies for canary in drawn] == [0, 0, 1, 1, 3, 3]
    assert len({canary.before for canary in drawn}) == len({canary.secret for canary in drawn}) == 6
    assert drawn == canaries.drawn(SETTINGS)
    assert drawn != canaries.drawn(SETTINGS.model_copy(update={"seed": 1}))
    assert drawn[0].before.startswith("Cartella di ")
    assert drawn[0].before.endswith(": ")


def test_more_secrets_than_there_are_is_said() -> None:
    with pytest.raises(InputError, match=r"canaries\.each: asks for 12 canaries, but there are .* and 10 secrets"):
        canaries.drawn(Canaries(copies=(1,), each=12, secret="#"))


def test_no_note_gets_two_and_too_few_notes_are_said() -> None:
    drawn = canaries.drawn(SETTINGS)
    at = canaries.placed(drawn, [f"n{i}" for i in range(20)])
    assert [len([c for c in at.values() if c is canary]) for canary in drawn] == [1, 1, 1, 1, 3, 3]
    assert list(at) == [f"n{i}" for i in range(10)], "the first come first"
    with pytest.raises(InputError, match=r"canaries\.copies: ask for 10 notes .* but there are 9"):
        canaries.placed(drawn, [f"n{i}" for i in range(9)])


def test_a_planted_note_is_the_note_and_the_sentence() -> None:
    drawn = canaries.drawn(SETTINGS)
    at = canaries.placed(drawn, [f"n{i}" for i in range(20)])
    ids = [f"n{i}" for i in range(12)]
    notes = pa.table({"note_id": ids, "text": [f"Nota {i}. " for i in range(12)], "tags": ["O B-N"] * 12})
    table, made = canaries.planted(notes, at)
    texts = dict(zip(ids, table["text"].to_pylist(), strict=True))
    assert texts["n11"] == "Nota 11. ", "no canary came here"
    assert {row["canary"] for row in made} == {canary.name for canary in drawn}
    for row in made:
        canary = at[row["note_id"]]
        assert row["text"][row["start"] : row["end"]] == row["secret"] == canary.secret
        assert (texts[row["note_id"]] == row["text"]) is (canary.copies > 0)
    for text, tags in zip(texts.values(), table["tags"].to_pylist(), strict=True):
        assert len(text.split()) == len(tags.split())
    planted = list(chain.from_iterable(text.split() for text in texts.values()))
    assert not [canary for canary in drawn if not canary.copies and f"{canary.secret}." in planted]
