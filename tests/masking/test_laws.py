"""The laws of masking, over all strategies, both formats, and any Unicode text."""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from raypipe import rows
from raypipe.errors import Code, RowError
from raypipe.masking import STRATEGIES, Masker, Renderer
from raypipe.masking.case import Note, phi_ranges
from raypipe.models.sentinels import Sentinels, contains_sentinel
from raypipe.settings.config import Masking
from raypipe.words import word_spans
from tests.masking.cases import CHOICES, NOTES, SENTENCES, STATISTICS, arms, fill, masking, relevance
from tests.masking.test_rendering import ENCODERS, RESERVED, parts

EASY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
LONG = " ".join(SENTENCES * 6)
SAMPLED = [n for n in CHOICES if STRATEGIES[masking(n).strategy].samples or n == "relevance_sample"]
PHI = (r"\d+", r"furosemide|ramipril", r"—")


def plans(masker: Masker, text: str, seed: int = 0, note_id: str = "n") -> list[dict[str, Any]]:
    try:
        return masker.plans(note_id, text, word_spans(text), ["t"], relevance(text, seed))
    except RowError as error:
        assume(error.code is not Code.NO_SPAN)
        raise


@pytest.fixture(scope="module")
def everything() -> Masker:
    return Masker(arms(), 0, STATISTICS)


def test_every_strategy_is_under_law() -> None:
    assert {masking(name).strategy for name in CHOICES} | {"cpt", "cpt_packed"} == set(STRATEGIES)


@EASY
@given(text=NOTES, ratio=st.floats(0.05, 0.9), profile=st.sampled_from(["raypipe", "paper"]), seed=st.integers(0, 99))
def test_matched_arms_hide_as_much(text: str, ratio: float, profile: str, seed: int) -> None:
    assume(not contains_sentinel(text))
    reference = Masking(profile=profile, **({"ratio": ratio} if profile == "raypipe" else {}))
    matched = arms(match_ratio_to="reference", stop_words=reference.stop_words)
    found = {
        plan["arm"]: plan for plan in plans(Masker({**matched, "reference": reference}, 0, STATISTICS), text, seed)
    }
    wanted = found.pop("reference")
    for arm, plan in found.items():
        assert plan["n_eligible"] == wanted["n_eligible"]
        assert abs(plan["n_masked"] - wanted["n_masked"]) <= 1, arm


@EASY
@given(text=NOTES, seed=st.integers(0, 99))
def test_the_count_is_what_the_spans_hide(everything: Masker, text: str, seed: int) -> None:
    assume(not contains_sentinel(text))
    words_W2 = word_spans(text)
    for plan in plans(everything, text, seed):
        bounds = [*zip(plan["start"], plan["end"], strict=True)]
        assert bounds == sorted(bounds)
        assert all(a < b for a, b in bounds)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(bounds))
        if plan["arm"] != "random_token":  # which hides parts of words
            eligible = Note(text, words_W2, relevance(text, seed), None).pool(Masking()).eligible_E
            inside = [e for e in eligible if any(a <= words_W2[e, 0] and words_W2[e, 1] <= b for a, b in bounds)]
            assert len(inside) == plan["n_masked"], plan["arm"]


@EASY
@given(text=NOTES, form=st.sampled_from(["single", "multi"]), reserved=st.booleans(), seed=st.integers(0, 99))
def test_filling_gives_the_note_back(everything: Masker, text: str, form: str, reserved: bool, seed: int) -> None:
    """Every example of every strategy, as the student gets it, with its spans back in place."""
    assume(not contains_sentinel(text))
    tokenizer, sentinels = ENCODERS[reserved].tokenizer, Sentinels(RESERVED if reserved else ())
    for plan in plans(everything, text, seed):
        examples = renderer(plan["arm"], form, reserved).examples(text, plan)
        assert bool(examples) == bool(plan["start"])
        for example in examples:
            before, answer = parts(tokenizer, example)
            assert fill(before.removesuffix("\n"), answer, sentinels) == text


@cache
def renderer(arm: str, form: str, reserved: bool) -> Renderer:
    return Renderer(ENCODERS[reserved], masking(arm, format=form), 100_000, RESERVED if reserved else ())


@EASY
@given(text=NOTES, profile=st.sampled_from(["raypipe", "paper"]), seed=st.integers(0, 99))
def test_protected_text_is_never_hidden(text: str, profile: str, seed: int) -> None:
    assume(not contains_sentinel(text))
    masker = Masker(arms(profile=profile, phi_patterns=PHI), 0, STATISTICS)
    protected = phi_ranges(text, PHI)
    for plan in plans(masker, text, seed):
        for start, end in zip(plan["start"], plan["end"], strict=True):
            assert not any(start < b and a < end for a, b in protected.tolist()), plan["arm"]


@EASY
@given(text=NOTES, seed=st.integers(0, 99))
def test_no_span_begins_or_ends_with_a_stop_word(everything: Masker, text: str, seed: int) -> None:
    assume(not contains_sentinel(text))
    words_W2 = word_spans(text)
    inner_W = Note(text, words_W2, None, None).pool(Masking()).inner_W
    for plan in plans(everything, text, seed):
        at_edge = np.isin(words_W2[:, 0], plan["start"]) | np.isin(words_W2[:, 1], plan["end"])
        assert not (at_edge & inner_W).any(), plan["arm"]


def test_one_worker_equals_eight_in_any_order() -> None:
    names = {**arms(), "matched": Masking(strategy="random_word", match_ratio_to="span", seed=4)}
    notes = [(f"note {i}", " ".join(random.Random(i).sample(LONG.split(), 40))) for i in range(24)]
    one = Masker(names, 7, STATISTICS)
    expected = {note_id: plans(one, text, 1, note_id) for note_id, text in notes}
    workers = [Masker(dict(reversed(names.items())), 7, STATISTICS) for _ in range(8)]
    random.Random(1).shuffle(notes)
    for number, (note_id, text) in enumerate(notes):
        found = plans(workers[number % 8], text, 1, note_id)
        assert sorted(found, key=lambda plan: plan["arm"]) == sorted(expected[note_id], key=lambda plan: plan["arm"])


@pytest.mark.parametrize("name", SAMPLED)
def test_redrawn_epochs_differ(name: str) -> None:
    masker = Masker({"a": masking(name, draws=3)}, 0, STATISTICS)
    drawn = {tuple(plan["start"]) for plan in plans(masker, LONG)}
    assert len(drawn) == 3
    assert {tuple(plan["start"]) for plan in plans(Masker({"a": masking(name, draws=3)}, 1, STATISTICS), LONG)} != drawn


def test_arms_that_share_a_strategy_hide_the_same_words() -> None:
    """So that a comparison of formats or weights compares nothing else."""
    masker = Masker({"a": masking("random_word"), "b": masking("random_word", format="single", prompt_loss=1)}, 0)
    first, second = plans(masker, LONG)
    assert first["start"] == second["start"]


def test_every_task_gets_its_plan_and_rows_fit_the_schema() -> None:
    masker = Masker({**arms(), "cpt": Masking(strategy="cpt", match_ratio_to="span")}, 0, STATISTICS)
    words_W2 = word_spans(LONG)
    found = masker.plans("n", LONG, words_W2, ["t1", "t2"], relevance(LONG, 0, 2))
    assert [plan["task_id"] for plan in found if plan["arm"] == "relevance"] == ["t1", "t2"]
    assert len(found) == 2 * (len(CHOICES) + 1)
    table = rows.table([{"note_id": "n", "text": LONG, "plans": found}], rows.MASKED)
    assert table.schema == rows.MASKED


def test_long_runs_are_cut_and_one_stop_word_joins() -> None:
    text = "alfa della beta " + "gamma " * 23
    words_W2 = word_spans(text)
    relevance_QW = np.ones((1, len(words_W2)), dtype=np.float32)
    plan = Masker({"a": Masking(ratio=0.99)}, 0).plans("n", text, words_W2, ["t"], relevance_QW)[0]
    hidden = [text[a:b] for a, b in zip(plan["start"], plan["end"], strict=True)]
    assert hidden[0].startswith("alfa della beta gamma")
    assert [len(span.split()) for span in hidden] == [10, 10, 6]


@pytest.mark.parametrize("text", ["uno <mask_1> due", "x <|reserved_special_token_120|>", "<unused33>"])
def test_a_note_with_a_sentinel_is_refused(everything: Masker, text: str) -> None:
    with pytest.raises(RowError, match=Code.SENTINEL.value):
        everything.plans("n", text, word_spans(text), [], None)


def test_a_note_with_a_sentinel_of_the_config_is_refused() -> None:
    with pytest.raises(RowError, match=Code.SENTINEL.value):
        Masker({"a": Masking(sentinels=("[unused7]",))}, 0).plans(
            "n", "ecco [unused7]", word_spans("ecco unused7"), [], None
        )


@pytest.mark.parametrize("text", ["", "...", "della il e", "🫀"])
def test_nothing_to_hide(text: str) -> None:
    with pytest.raises(RowError, match=Code.NO_SPAN.value):
        Masker({"a": Masking(strategy="random_word")}, 0).plans("n", text, word_spans(text), [], None)


def test_words_that_the_scorer_did_not_see_are_nobodys_targets(everything: Masker) -> None:
    words_W2, relevance_QW = word_spans(LONG), relevance(LONG, 5)
    relevance_QW[:, 30:] = 0
    end = words_W2[30, 0]
    assert all(max(plan["end"]) <= end for plan in everything.plans("n", LONG, words_W2, ["t"], relevance_QW))


def test_zeros_at_the_edges_of_a_whole_note_are_just_zeros() -> None:
    masker, text = Masker({"a": Masking(strategy="least_relevant", ratio=0.5)}, 0), "alfa beta gamma epsilon"
    relevance_QW = np.array([[0, 1, 1, 0]], dtype=np.float32)
    plan = masker.plans("n", text, word_spans(text), ["t"], relevance_QW, is_cut=False)[0]
    assert [text[a:b] for a, b in zip(plan["start"], plan["end"], strict=True)] == ["alfa", "epsilon"]


def test_refilled_sequences_follow_every_draw() -> None:
    names = {"a": Masking(strategy="random_word", draws=3), "cpt": Masking(strategy="cpt", match_ratio_to="a")}
    found = plans(Masker(names, 0), LONG)
    assert [p["start"] for p in found if p["arm"] == "a"] == [p["start"] for p in found if p["arm"] == "cpt"]
    assert [p["draw"] for p in found] == [0, 1, 2] * 2


def test_broken_relevance_is_a_dead_letter(everything: Masker) -> None:
    with pytest.raises(RowError, match=Code.NONFINITE.value):
        everything.plans("n", "uno due", word_spans("uno due"), ["t"], np.array([[np.nan, 1]], dtype=np.float32))
