"""Masking settings: profiles, and what is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from raypipe.errors import InputError
from raypipe.masking import STRATEGIES, Masker
from raypipe.masking.requirements import needs, order, problems
from raypipe.masking.strategy import COMMON
from raypipe.settings.config import Masking
from raypipe.settings.sections.masking import PROFILES
from tests.masking.cases import arms, masking


def said(**named: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in problems({name: Masking(**keys) for name, keys in named.items()})]


def test_given_keys_win_over_the_profile_and_the_profile_over_defaults() -> None:
    paper = Masking(profile="paper", prompt_loss=0.5)
    assert (paper.selection, paper.format, paper.stop_words, paper.prompt_loss) == ("hysteresis", "single", False, 0.5)
    assert Masking(**paper.model_dump()) == paper
    assert set(PROFILES) == set(Masking.model_fields["profile"].annotation.__args__)


def test_sound_arms_have_no_problems() -> None:
    assert problems(arms()) == []
    assert problems(arms(profile="paper")) == []
    for settings in arms(profile="paper").values():
        assert problems({"again": Masking(**settings.model_dump())}) == []


def test_strategies_read_keys_that_exist() -> None:
    assert all(strategy.reads <= set(Masking.model_fields) for strategy in STRATEGIES.values())
    assert set(Masking.model_fields) >= COMMON


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"strategy": "relevanse"}, "arms.a.masking.strategy: unknown strategy 'relevanse'; known: relevance, least"),
        ({"strategy": "relevanse"}, "Did you mean 'relevance'?"),
        ({"strategy": "random_word", "temperature": 1}, "arms.a.masking.temperature: not read by random_word"),
        ({"temperature": 1}, "selection topk"),
        (
            {"selection": "hysteresis", "ratio": 0.3},
            "arms.a.masking.ratio: not read by relevance (selection hysteresis)",
        ),
        ({"hysteresis": {"low": 0.1}}, "arms.a.masking.hysteresis"),
        ({"strategy": "pmi", "mslm": {"p_base": 0.3}}, "arms.a.masking.mslm: not read by pmi"),
        ({"strategy": "random_token", "max_span_words": 3}, "arms.a.masking.max_span_words: not read by random_token"),
        ({"strategy": "cpt", "ratio": 0.3}, "arms.a.masking.ratio"),
        ({"strategy": "cpt", "condition": "item"}, "arms.a.masking.condition"),
        ({"draws": 3}, "arms.a.masking.draws: this arm hides the same words in every draw"),
        ({"strategy": "cpt_packed", "match_ratio_to": "b"}, "arms.a.masking.match_ratio_to: not read by cpt_packed"),
        ({"strategy": "random_word", "condition": "item"}, "no arm asks for relevance"),
        ({"strategy": "mslm"}, "arms.a.masking.mslm.lexicon"),
        ({"match_ratio_to": "b"}, "no arm with masking is called b"),
        ({"match_ratio_to": "a"}, "in a circle: a -> a"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in said(a=keys)), said(a=keys)


def test_matching_must_make_sense() -> None:
    assert "copies the ratio of b; remove one" in said(a={"match_ratio_to": "b", "ratio": 0.3}, b={})[0]
    assert "there is no ratio to copy" in said(a={"match_ratio_to": "b"}, b={"strategy": "cpt"})[0]
    assert "another format" in said(a={"strategy": "cpt", "match_ratio_to": "b"}, b={"profile": "paper"})[0]
    marks = {"sentinels": ["<a>", "<b>"]}
    assert "another sentinels" in said(a={"strategy": "cpt", "match_ratio_to": "b"}, b=marks)[0]
    assert not said(a={"strategy": "cpt", "match_ratio_to": "b"} | marks, b=marks)
    assert (
        "another stop_words, so"
        in said(a={"strategy": "random_word", "match_ratio_to": "b"}, b={"profile": "paper"})[0]
    )
    assert not said(a={"strategy": "random_word", "match_ratio_to": "b", "stop_words": False}, b={"profile": "paper"})
    assert (
        "another phi_patterns"
        in said(a={"strategy": "random_word", "match_ratio_to": "b"}, b={"phi_patterns": ["x"]})[0]
    )
    assert "hysteresis takes as many" in said(a={"profile": "paper", "match_ratio_to": "b"}, b={"stop_words": False})[0]
    assert (
        "a -> b -> c -> a" in said(a={"match_ratio_to": "b"}, b={"match_ratio_to": "c"}, c={"match_ratio_to": "a"})[0]
    )
    with pytest.raises(InputError, match="circle"):
        Masker({"a": Masking(match_ratio_to="a")}, 0)


def test_matched_arms_come_after_what_they_match() -> None:
    names = {"a": Masking(match_ratio_to="b"), "b": Masking(match_ratio_to="c"), "c": Masking()}
    assert order(names) == ["c", "b", "a"]


@pytest.mark.parametrize(
    "keys", [{"ratio": 0}, {"ratio": 1}, {"temprature": 1}, {"phi_patterns": ["("]}, {"max_spans": 65}]
)
def test_broken_values(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Masking(**keys)


def test_what_the_corpus_must_provide() -> None:
    assert needs({"a": Masking(), "b": Masking(strategy="random_word")}) == {"relevance"}
    assert needs({"a": masking("mslm_tficf")}) == {"counts", "ngrams", "general"}
    assert needs({"a": masking("selective_tagger")}) == {"counts", "importance"}
