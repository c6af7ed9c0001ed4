"""Effects of parameters and rank agreement, in a search whose truth we set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest

from raypipe.tuning import analysis, stability, trial_tables
from raypipe.tuning.trial_tables import FINISHED, Search
from tests.tuning.searches import LAYERS, RATIO, RATIOS, SEED


def test_effects_are_the_textbook_eta_squared(search: Search) -> None:
    rows = search.of("llama")
    y = np.asarray([row["dev_macro_f1"] for row in rows])
    for effect in stability.effects(search, "llama"):
        level = [row[trial_tables.CONFIG + effect.key] for row in rows]
        fitted = np.asarray([y[[other == this for other in level]].mean() for this in level])
        assert effect.share == pytest.approx(fitted.var() / y.var())
    of = {effect.key: effect for effect in stability.effects(search, "llama")}
    assert of[RATIO].share > of[RATIO].by_chance
    assert of[SEED].share < 0.1


def test_a_parameter_without_effect_reaches_what_chance_gives(search: Search) -> None:
    """Shuffled outcomes: the mean share over many searches is the one that the page draws as a line."""
    rng, shares = np.random.default_rng(0), []
    table = search.trials.filter(pc.equal(search.trials["status"], FINISHED))
    table = table.filter(pc.equal(table["model"], "llama"))
    index = table.column_names.index("dev_macro_f1")
    for _ in range(200):
        shuffled = table.set_column(index, "dev_macro_f1", [rng.normal(size=len(table))])
        (effect,) = (e for e in stability.effects(replace(search, trials=shuffled), "llama") if e.key == RATIO)
        shares.append(effect.share)
    assert np.mean(shares) == pytest.approx(effect.by_chance, abs=0.02)


def test_numbers_with_many_values_are_cut_into_quarters() -> None:
    for values in (range(40), np.linspace(0, 1, 40).tolist()):
        assert np.bincount(stability._levels(list(values))).tolist() == [10] * 4
    assert len(set(stability._levels([True, False] * 20))) == 2


def test_stability_is_high_where_tasks_share_a_truth_and_low_where_not(search: Search) -> None:
    of_model = analysis.results(search, search.models[0])
    assert of_model is not None
    agreed = stability.over_tasks(of_model)
    assert agreed is not None
    assert agreed.value > 0.6
    assert agreed.p < 0.01
    rng = np.random.default_rng(0)
    noise = tuple(replace(s, per_task={task: rng.random() for task in s.per_task}) for s in of_model.settings)
    nothing = stability.over_tasks(replace(of_model, settings=noise))
    assert nothing is not None
    assert nothing.value < 0.45


def test_models_are_compared_on_the_settings_they_share(results: list[analysis.Results]) -> None:
    (agreement,) = stability.between_models(results)
    assert agreement.n_settings == len(RATIOS) * len(LAYERS)
    assert agreement.value > 0.5
    fewer = replace(results[1], settings=results[1].settings[:2])
    assert stability.between_models([results[0], fewer]) == []
