"""Numbers that are known beforehand: those of docs/method.md, section 12, and worked examples of each method."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from raypipe import rows
from raypipe.masking import Masker
from raypipe.masking.counting import count_block
from raypipe.masking.difference import probabilities
from raypipe.masking.draws import uniforms
from raypipe.masking.masker import MaskingPlan
from raypipe.masking.selection import KERNEL, best, budget, draw, hysteresis, smooth
from raypipe.masking.statistics import Statistics
from raypipe.masking.tally import Tally, tally_of
from raypipe.masking.weights import kind_weights, omega, weights_of_arm
from raypipe.settings.config import DifferenceMasking, Hysteresis, Masking, Mslm
from raypipe.words import word_spans
from tests.masking.cases import STATISTICS


def hidden(
    options: Masking, text: str, relevance: list[float] | None = None, tags: list[str] | None = None
) -> list[str]:
    return written(text, plan_of(options, text, relevance, tags))


def plan_of(
    options: Masking, text: str, relevance: list[float] | None = None, tags: list[str] | None = None
) -> MaskingPlan:
    values = None if relevance is None else np.array([relevance], dtype=np.float32)
    return Masker({"a": options}, 0, STATISTICS).plans("n", text, word_spans(text), ["t"], values, tags)[0]


def written(text: str, plan: MaskingPlan) -> list[str]:
    return [text[a:b] for a, b in zip(plan["start"], plan["end"], strict=True)]


def test_the_smoothing_kernel() -> None:
    assert pytest.approx([0.27407, 0.45186, 0.27407], abs=1e-5) == KERNEL.tolist()
    assert smooth(np.ones(4, np.float32)) == pytest.approx(1)


@pytest.mark.parametrize(("peak", "size"), [(0.88, 0), (0.89, 3), (1.0, 3)])
def test_an_isolated_peak(peak: float, size: int) -> None:
    relevance_W = np.zeros(9, np.float32)
    relevance_W[4] = peak
    assert np.flatnonzero(hysteresis(relevance_W, Hysteresis())).tolist() == [3, 4, 5][:size]


def test_a_run_needs_one_value_above_high() -> None:
    level_W = np.array([0.3, 0.3, 0.1, 0.3, 0.5, 0.3, 0.0, 0.3], np.float32)
    assert np.flatnonzero(hysteresis(level_W, Hysteresis(smooth=False))).tolist() == [3, 4, 5]


def test_profile_paper_takes_the_neighbours_of_a_peak() -> None:
    text = "uno due tre quattro della sei sette otto"
    assert hidden(Masking(profile="paper"), text, [0, 0, 0, 0.1, 2.0, 0, 0, 0.1]) == ["quattro della sei"]


def test_ratio_and_budget() -> None:
    assert [budget(0.15, n) for n in (0, 1, 3, 10, 100)] == [0, 1, 1, 2, 15]
    assert best(np.array([1.0, 3, 3, 2]), 2).tolist() == [1, 2]


def test_top_least_and_shuffled() -> None:
    text, relevance = "alfa beta gamma epsilon", [0.1, 0.9, 0.5, 0.7]
    assert hidden(Masking(ratio=0.5), text, relevance) == ["beta", "epsilon"]
    assert hidden(Masking(strategy="least_relevant", ratio=0.5), text, relevance) == ["alfa", "gamma"]


def test_shuffling_rotates_the_scores_so_that_spans_stay_as_long() -> None:
    text, relevance = " ".join(f"parola{i}" for i in range(12)), [0.0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.1]
    options = Masking(strategy="shuffled_relevance", ratio=0.25)
    found = [hidden(options.model_copy(update={"seed": seed}), text, relevance) for seed in range(30)]
    assert sum(len(spans) == 1 for spans in found) > 20  # else the three stand at both ends
    assert all(sum(len(span.split()) for span in spans) == 3 for spans in found)
    assert ["parola2 parola3 parola4"] not in found


def test_negations_may_be_hidden_and_other_function_words_not() -> None:
    assert hidden(Masking(ratio=0.99), "non ha la febbre e nega della tosse", [1] * 8) == [
        "non",
        "febbre e nega della tosse",
    ]


def test_gumbel_top_k_draws_by_weight() -> None:
    weight_N = np.array([4.0, 3, 2, 1])
    first = [int(draw(weight_N, 1, uniforms(key, 4))[0]) for key in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.025)


def test_a_low_temperature_is_the_top() -> None:
    text, relevance = "alfa beta gamma epsilon", [0.1, 0.9, 0.5, 0.7]
    assert hidden(Masking(selection="sample", temperature=1e-4, ratio=0.5), text, relevance) == ["beta", "epsilon"]


def test_uniform_numbers_are_uniform_and_independent() -> None:
    drawn = np.stack([uniforms(key, 5000, stream) for key in (1, 2) for stream in (0, 1)])
    assert drawn.mean(axis=1) == pytest.approx(0.5, abs=0.02)
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize(("n_e", "n_b", "expected"), [(1, 3, 0.5622), (3, 1, 0.5622), (1, 1, 0.5), (0, 0, 0.5)])
def test_omega(n_e: int, n_b: int, expected: float) -> None:
    assert omega(n_e, n_b) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["code", "inverse", "fixed"])
def test_kind_weights_average_one(kind: str) -> None:
    _, entity, base = kind_weights(Mslm(weights=kind), 10, 30)
    assert 0.25 * entity + 0.75 * base == pytest.approx(1)
    ratio = {"code": 1.5622 / 1.4378, "inverse": 3.0, "fixed": 2.0}[kind]
    assert entity / base == pytest.approx(ratio, rel=1e-3)
    assert kind_weights(Mslm(weights="inverse"), 5, 0) == (1.0, 1.0, 1.0)


def test_hidden_text_by_kind() -> None:
    first = {"arm": "a", "start": [0, 9], "end": [4, 12], "kind": [1, 2], "n_masked": 2, "n_eligible": 8}
    other = {"arm": "b", "start": [], "end": [], "kind": [], "n_masked": 0, "n_eligible": 0}
    again = {"arm": "a", "start": [0], "end": [5], "kind": [0], "n_masked": 1, "n_eligible": 4}
    column = pa.array([[first, other], None, [again]], pa.list_(rows.PLAN))
    found = tally_of([column, column[:0]])
    assert found["a"].characters.tolist() == [5, 4, 3]
    assert (found["a"].plans, found["a"].spans, found["a"].ratio) == (2, 3, 0.25)
    assert (found["b"].plans, found["b"].spans, found["b"].ratio) == (1, 0, 0)
    again = Tally.of_facts(json.loads(json.dumps(found["a"].facts)))
    assert again.facts == found["a"].facts
    assert weights_of_arm(Masking(strategy="mslm"), again) == weights_of_arm(Masking(strategy="mslm"), found["a"])
    assert weights_of_arm(Masking(), found["a"]) == (1, 1, 1)
    assert weights_of_arm(Masking(strategy="mslm"), found["a"]) == kind_weights(Mslm(), 4, 3)


def test_difference_masking_weights() -> None:
    score_N, place_N = np.array([0.9, 0.5, 0.1, -0.4]), np.array([8.0, 4, 3, 1])
    assert probabilities(score_N, place_N, DifferenceMasking()).tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    mixed = probabilities(score_N, place_N, DifferenceMasking(alpha=0.5))
    assert mixed.tolist() == pytest.approx([0.325, 0.275, 0.225, 0.175])
    by_similarity = probabilities(score_N, place_N, DifferenceMasking(weight="similarity"))
    assert by_similarity.tolist() == pytest.approx([0.6, 1 / 3, 1 / 15, 0])
    assert probabilities(score_N, place_N, DifferenceMasking(weight="rank_global")).tolist() == pytest.approx(
        place_N / 16
    )


def test_spanbert_lengths() -> None:
    """Mean 3.8 words of the geometric distribution with p .2 cut off at 10."""
    text = " ".join(f"parola{i}" for i in range(400))
    masker = Masker({"a": Masking(strategy="span", ratio=0.02, max_span_words=None)}, 0)
    first = [masker.plans(str(i), text, word_spans(text), [], None)[0] for i in range(300)]
    lengths = [len(span.split()) for plan in first for span in written(text, plan)[:1]]
    assert np.mean(lengths) == pytest.approx(3.6, abs=0.5)  # the budget of 8 words cuts some
    assert max(lengths) <= 10


def test_pmi_of_a_pair_and_of_a_triple() -> None:
    """Segmentations of a triple: a|b|c, ab|c, a|bc; PMI takes the least surprising, which is the likeliest."""
    from raypipe.masking.collocations import pmi_of_ngrams

    counts = {"a": 20, "b": 20, "c": 40}
    pairs = {"a b": 20, "b c": 20, "a b c": 20}
    statistics = Statistics(words=tuple(counts), count_V=np.array([*counts.values()]), n_words=200, ngrams=pairs)
    found = pmi_of_ngrams(statistics)
    assert found["a b"] == pytest.approx(math.log(0.1 / (0.1 * 0.1)))
    assert found["a b c"] == pytest.approx(math.log(0.1 / (0.1 * 0.2)))  # (a b) c


def test_pmi_hides_collocations_whole() -> None:
    options = Masking(strategy="pmi", ratio=0.5, pmi={"min_count": 5, "longest": 2})
    text = "alfa scompenso cardiaco beta diabete mellito gamma epsilon"
    for seed in range(8):
        spans = " | ".join(hidden(options.model_copy(update={"seed": seed}), text))
        assert ("scompenso" in spans) == ("scompenso cardiaco" in spans)
        assert ("mellito" in spans) == ("diabete mellito" in spans)


def test_mslm_hides_entities_whole_and_base_words_apart() -> None:
    text = "scompenso cardiaco antico con febbre alta e oggi diabete"
    options = Masking(strategy="mslm", mslm={"lexicon": "terms.txt", "p_entity": 1, "p_base": 0})
    plan = plan_of(options, text)
    assert written(text, plan) == ["scompenso cardiaco", "febbre", "diabete"]
    assert plan["kind"] == [1, 1, 1]
    base = plan_of(Masking(strategy="mslm", mslm={"lexicon": "terms.txt", "p_entity": 0, "p_base": 1}), text)
    assert written(text, base) == ["antico", "alta e oggi"]
    assert base["kind"] == [2, 2]
    capped = plan_of(Masking(strategy="mslm", mslm={"lexicon": "terms.txt", "p_entity": 1, "max_ratio": 0.3}), text)
    assert capped["n_masked"] == 2


def test_mslm_reads_bio_tags() -> None:
    text = "dolore toracico, ieri febbre (38 C) e tosse."
    options = Masking(strategy="mslm", mslm={"terms": "ner", "p_entity": 1, "p_base": 0})
    tags = ["B-SYM", "I-SYM", "O", "B-SYM", "O", "O", "O", "B-SYM"]
    assert hidden(options, text, tags=tags) == ["dolore toracico", "febbre", "tosse"]


def test_selective_hides_what_costs_more_than_delta() -> None:
    text, drop = "alfa beta gamma epsilon", [0.2, 0.05, 0.051, 0.0]
    relevance = [*drop]
    own = {"source": "relevance"}
    assert hidden(Masking(strategy="selective", selective=own), text, relevance) == ["alfa", "gamma"]
    assert hidden(Masking(strategy="selective", selective={**own, "delta": 0.1}), text, relevance) == ["alfa"]


def test_tficf_and_the_floor() -> None:
    counts = count_block(["dispnea grave di notte"] * 6 + ["raro di notte"] * 4)
    statistics = Statistics.of_counts(counts).with_general({"notte": 900, "di": 9000, "grave": 90})
    assert statistics.words == ("di", "dispnea", "grave", "notte")  # raro: fewer than 5 notes
    score = dict(zip(statistics.words, statistics.tficf(), strict=True))
    assert score["dispnea"] == pytest.approx(6 / 36 * math.log((9990 + 3) / 1))
    assert score["di"] == -math.inf
    assert score["dispnea"] > score["grave"] > score["notte"]
