"""Relevance against known deciding words: hand-computed shares, scikit-learn, and simulation under chance."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from raypipe.evaluation.agreement import AnnotatedRelevance, agreement, deciding_words
from raypipe.words import word_spans


def test_by_hand():
    # 10 words, 3 decide; top 20 % = 2 words: one hits
    relevance = np.asarray([9, 8, 7, 6, 5, 4, 3, 2, 1, 0.5])
    decides = np.asarray([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=bool)
    result = agreement([AnnotatedRelevance("n", relevance, decides)], top_share=0.2, n_bootstrap=50)
    assert result.hit_share == pytest.approx(0.5)
    assert result.least_relevant_share == pytest.approx(0.5)
    assert result.chance == pytest.approx(0.3)
    assert result.average_precision == pytest.approx((1 / 1 + 2 / 3 + 3 / 10) / 3)
    assert result.average_precision == pytest.approx(average_precision_score(decides, relevance))


def test_at_least_one_word_and_notes_without_deciding_words_are_left_out():
    cases = [
        AnnotatedRelevance("a", np.asarray([0.1, 0.9, 0.2]), np.asarray([False, True, False])),
        AnnotatedRelevance("b", np.ones(4), np.zeros(4, dtype=bool)),
    ]
    result = agreement(cases, top_share=0.01, n_bootstrap=50)
    assert (result.hit_share, result.n_cases, result.n_notes) == (1.0, 1, 1)
    assert agreement(cases[1:]) is None


def noise_cases(rng, n_notes, shift=0.0):
    for i in range(n_notes):
        decides = np.zeros(30, dtype=bool)
        decides[rng.choice(30, size=rng.integers(1, 6), replace=False)] = True
        yield AnnotatedRelevance(f"n{i}", rng.normal(size=30) + shift * decides, decides)


def test_noise_scores_its_chance_in_every_column():
    result = agreement(list(noise_cases(np.random.default_rng(0), 4000)), n_bootstrap=200)
    assert result.hit_share == pytest.approx(result.chance, abs=0.01)
    assert result.least_relevant_share == pytest.approx(result.chance, abs=0.01)
    assert result.average_precision == pytest.approx(result.average_precision_chance, abs=0.01)
    assert result.average_precision_chance > result.chance + 0.03  # why chance is computed and not assumed


def test_interval_covers_and_signal_is_found():
    rng = np.random.default_rng(1)
    covered = [
        r.lift_interval[0] <= 0 <= r.lift_interval[1]
        for r in (agreement(list(noise_cases(rng, 60)), n_bootstrap=300, seed=i) for i in range(150))
    ]
    assert 0.88 <= np.mean(covered) <= 0.99
    found = agreement(list(noise_cases(rng, 60, shift=2.0)), n_bootstrap=300)
    assert found.lift_interval[0] > 0.1
    assert found.hit_interval[0] < found.hit_share < found.hit_interval[1]


def test_tasks_of_one_note_are_one_draw():
    """Ten copies of each note must not narrow the interval."""
    cases = list(noise_cases(np.random.default_rng(2), 40))
    once, often = agreement(cases), agreement(cases * 10)
    assert often.n_notes == 40
    assert often.hit_interval == pytest.approx(once.hit_interval)


def test_a_word_decides_if_one_character_of_it_does():
    text = "Nega febbre, tosse"
    assert deciding_words(word_spans(text), [(10, 14)]).tolist() == [False, True, True]
    assert deciding_words(word_spans(text), [(11, 13)]).tolist() == [False, False, False]  # comma and space
    assert deciding_words(word_spans(text), []).tolist() == [False] * 3
