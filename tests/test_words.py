"""Words of a note in any script, and relevance of tokens as relevance of words."""

from __future__ import annotations

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


@settings(deadline=None)
@given(
    st.text(
        st.characters(max_codepoint=0x206F, exclude_characters="".join(map(chr, range(0x300, 0x200E)))), max_size=60
    )
)
def test_the_fast_pattern_finds_the_same_words(text: str) -> None:
    assert [m.span() for m in words._LATIN.finditer(text)] == [m.span() for m in words._ANY_SCRIPT.finditer(text)]


def test_one_form_of_unicode() -> None:
    assert normalise("e\u0301") == "\u00e9"


def test_tokens_to_words() -> None:
    words_W2 = np.array([[0, 4], [5, 9], [12, 15]], dtype=np.int32)
    offsets_T2 = np.array([[0, 2], [2, 4], [4, 7], [7, 11]], dtype=np.int32)  # the third carries the blank
    relevance_1T = np.array([[1.0, 3.0, -2.0, 5.0]], dtype=np.float32)
    for how, expected in (("max", [3, 5, 0]), ("sum", [4, 3, 0]), ("mean", [2, 1.5, 0])):
        assert relevance_of_words(relevance_1T, offsets_T2, words_W2, how).tolist() == [expected]
