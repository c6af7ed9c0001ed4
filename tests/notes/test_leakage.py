"""Held-out notes and their copies never reach self-supervision; other notes do."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from raypipe.notes.leakage import SIMILAR, Guard, shingle_hashes

RNG = random.Random(0)
VOCABULARY = [f"parola{i}" for i in range(2000)]


def note(number: int, group: str | None = None, n_words: int = 120) -> dict[str, Any]:
    return {"note_id": f"n{number}", "group_id": group, "text": " ".join(RNG.choices(VOCABULARY, k=n_words))}


HELD_OUT = [note(i, group=f"patient {i}" if i % 2 else None) for i in range(60)]
GUARD = Guard.fit(HELD_OUT)


def edited(text: str, n: int) -> str:
    words = text.split()
    for position in random.Random(n).sample(range(5, len(words) - 5), n):
        words[position] = "altro"
    return " ".join(words)


def test_by_id_and_group() -> None:
    assert GUARD.blocks("n0", None, "tutt'altro testo")
    assert GUARD.blocks("x", "patient 3", "tutt'altro testo")
    assert not GUARD.blocks("x", "patient 2", "tutt'altro testo")  # that note has no group
    assert not GUARD.blocks("x", None, "tutt'altro testo")


@pytest.mark.parametrize("change", [str.upper, lambda t: t.replace(" ", ",\r\n "), lambda t: f"  {t}. "])
def test_exact_copies_whatever_case_and_punctuation(change: Any) -> None:
    assert all(GUARD.blocks("x", None, change(held_out["text"])) for held_out in HELD_OUT)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16])
def test_near_copies_by_the_true_jaccard(n: int) -> None:
    for held_out in HELD_OUT:
        copy = edited(held_out["text"], n)
        left, right = (set(shingle_hashes(text).tolist()) for text in (held_out["text"], copy))
        assert GUARD.blocks("x", None, copy) == (len(left & right) / len(left | right) >= SIMILAR)


def test_other_notes_pass() -> None:
    assert not any(GUARD.blocks("x", "other", note(i)["text"]) for i in range(100, 300))


def test_short_and_empty_notes() -> None:
    guard = Guard.fit(
        [
            {"note_id": "a", "group_id": None, "text": "Dolore toracico"},
            {"note_id": "b", "group_id": None, "text": None},
        ]
    )
    assert guard.blocks("x", None, "dolore TORACICO!")
    assert not guard.blocks("x", None, "dolore toracico forte")
    assert not guard.blocks("x", None, "")
    assert guard.blocks("b", None, "")
    assert not Guard.fit([]).blocks("x", None, "dolore toracico")


def test_small_and_the_same_everywhere() -> None:
    packed = pickle.dumps(GUARD)
    assert len(packed) < 3000 * len(HELD_OUT)
    again = pickle.loads(packed)
    assert again.blocks("x", None, HELD_OUT[7]["text"])
    code = "from raypipe.notes.leakage import shingle_hashes as s; print(s('uno due tre quattro cinque sei').tolist())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == str(np.asarray(shingle_hashes("uno due tre quattro cinque sei")).tolist())
