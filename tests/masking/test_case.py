"""A pattern of the user's that never ends on a note costs that note alone."""

from __future__ import annotations

import pytest

from raypipe.errors import Code, RowError
from raypipe.guard import limits
from raypipe.masking import Masker
from raypipe.masking.counting import count_block
from raypipe.settings.config import Masking
from raypipe.words import word_spans

ENDLESS = (r"(a|aa)+$",)
BAD, GOOD = "febbre " + "a" * 80 + "!", "febbre da due giorni"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIMIT_S", 0.05)


def test_masking_makes_it_a_dead_letter() -> None:
    masker = Masker({"a": Masking(strategy="random_word", ratio=0.5, phi_patterns=ENDLESS)}, 0)
    with pytest.raises(RowError) as refused:
        masker.plans("n", BAD, word_spans(BAD), [], None)
    assert refused.value.code == Code.PATTERN
    assert masker.plans("n", GOOD, word_spans(GOOD), [], None)


def test_counting_leaves_it_out() -> None:
    assert count_block([BAD, GOOD], phi_patterns=ENDLESS).equals(count_block([GOOD]))
