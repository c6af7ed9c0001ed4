"""Words of a note in any script, and relevance of tokens as relevance of words."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe import words
from raypipe.words import normalise, relevance_of_words, word_spans
from tests.masking.cases import NOTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dell'addome, 120/80 mmHg", ["dell", "addome", "120", "80", "mmHg"]),
        ("l\u2019\u00e9t\u00e9 na\u00efve", ["l", "\u00e9t\u00e9", "na\u00efve"]),
        ("q\u0301ue\u0323\u0301 a", ["q\u0301ue\u0323\u0301", "a"]),
        ("_x_ y_z __", ["x_", "y_z"]),
        ("日本語テスト ok", [*"日本語テスト", "ok"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),
        ("👩\u200d⚕️ 🫀 ok", ["ok"]),
        ("a\r\nb\tc", ["a", "b", "c"]),
        ("", []),
        ("... \n", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in word_spans(text)] == expected


@settings(deadline=None)
@given(NOTES)
def test_words_are_sorted_disjoint_and_begin_with_a_letter_or_digit(text: str) -> None:
    spans = word_spans(text).tolist()
    assert [b for span in spans for b in span] == sorted(b for span in spans for b in span)
    assert all(a < b and (text[a].isalnum() or text[a] > "\U00020000") for a, b in spans)  # some are not assigned yet


# What the table of words.py says, as a pattern: it knows the marks by their list.
_M = "\u200c\u200d" + "".join(chr(p) for p in range(0xE01F0) if unicodedata.category(chr(p))[0] == "M")
_I = "".join(f"{chr(first)}-{chr(last)}" for first, last in words._IDEOGRAPHS)
_PATTERN = re.compile(rf"[{_I}][{_M}]*|[^\W_{_I}][^\W{_I}]*(?:[{_M}]+[^\W{_I}]*)*")
_MIXED = st.sampled_from(
    "a_1 .e\u0301\u200d\u200c\u4e00\u3042\u30fc\u0915\u093f\u03c3\u2019\U0001f600\U000e0100\U00020001"
)


@settings(deadline=None)
@given(st.one_of(st.text(_MIXED, max_size=30), st.text(max_size=60)))
def test_the_table_finds_the_words_of_the_pattern(text: str) -> None:
    assert [(a, b) for a, b in word_spans(text).tolist()] == [match.span() for match in _PATTERN.finditer(text)]


def test_the_table_knows_every_character() -> None:
    table, every = words._kinds(), [chr(point) for point in range(0x110000)]
    begins = {point for point, character in enumerate(every) if _PATTERN.match(character)}
    assert set(np.flatnonzero((table == words._LETTER) | (table == words._IDEOGRAPH)).tolist()) == begins
    goes_on = {point for point, character in enumerate(every) if _PATTERN.fullmatch(f"a{character}")}
    assert set(np.flatnonzero(table >= words._MARK).tolist()) == goes_on


def test_one_form_of_unicode() -> None:
    assert normalise("e\u0301") == "\u00e9"


def test_tokens_to_words() -> None:
    words_W2 = np.array([[0, 4], [5, 9], [12, 15]], dtype=np.int32)
    offsets_T2 = np.array([[0, 2], [2, 4], [4, 7], [7, 11]], dtype=np.int32)  # the third carries the blank
    relevance_1T = np.array([[1.0, 3.0, -2.0, 5.0]], dtype=np.float32)
    for how, expected in (("max", [3, 5, 0]), ("sum", [4, 3, 0]), ("mean", [2, 1.5, 0])):
        assert relevance_of_words(relevance_1T, offsets_T2, words_W2, how).tolist() == [expected]
