"""What the analysis says of a search whose truth we set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raypipe.evaluation.metrics import evaluate
from raypipe.tuning import analysis, trial_tables
from raypipe.tuning.trial_tables import FINISHED, LABELS_ONLY, Search
from tests.tuning.searches import BEST, LAYER, LAYERS, RATIO, RATIOS, made_search


def test_the_planted_optimum_is_found_and_its_neighbours(results: list[analysis.Results]) -> None:
    for of_model in results:
        assert of_model.keys == (RATIO, LAYER)
        assert of_model.best.values == BEST
        assert {n.values for n in of_model.neighbours} == {(0.15, 0.25), (0.45, 0.25), (0.3, 0.0), (0.3, 0.5)}
        assert len(of_model.settings) == len(RATIOS) * len(LAYERS)
        assert of_model.best.layer == 1


def test_seeds_are_runs_and_what_did_not_finish_does_not_count(search: Search, results: list[analysis.Results]) -> None:
    for setting in results[0].settings:
        assert setting.estimate.n_runs == 2
        assert len(setting.trial_ids) == 2
    finished = search.of("llama")
    assert len(finished) == len(search.of("llama", None)) - 2
    assert {trial["status"] for trial in finished} == {FINISHED}


def test_like_seeds_are_paired_whatever_their_trials_are_called() -> None:
    plain = made_search(("llama",), seeds=(0, 1, 2))
    named = replace(plain, trials=_named_anew(plain.trials), predictions=_named_anew(plain.predictions))
    one, other = (analysis.results(search, search.models[0]) for search in (plain, named))
    assert one is not None
    assert other is not None
    assert one.best.trial_ids != other.best.trial_ids
    of_one, of_other = ({d.reference: d.estimate for d in found.differences} for found in (one, other))
    assert of_one.keys() == of_other.keys()
    for reference, e in of_one.items():
        assert (e.low, e.high) == pytest.approx((of_other[reference].low, of_other[reference].high))


def _named_anew(table: pa.Table) -> pa.Table:
    """Other names of trials, whose order is another one in each setting."""
    names = [n if n == LABELS_ONLY else f"t{int(n[1:]) * 7919 % 10007:05d}" for n in table["trial_id"].to_pylist()]
    return table.set_column(table.column_names.index("trial_id"), "trial_id", pa.array(names, pa.string()))


def test_repeats_of_a_trial_are_no_seeds() -> None:
    """Three trials of two runs each: six runs, but three reconstructions."""
    search = made_search(("llama",), n_notes=10, seeds=(0, 1, 2), repeats=2)
    of_model = analysis.results(search, search.models[0])
    assert of_model is not None
    for estimate in (of_model.best.estimate, of_model.differences[0].estimate):
        assert estimate.n_runs == 6
        assert "few_seeds" in estimate.caveats


def test_a_setting_is_worth_the_mean_of_its_trials(search: Search, results: list[analysis.Results]) -> None:
    for setting in results[0].settings:
        values = [trial["dev_macro_f1"] for trial in search.of("llama") if trial["trial_id"] in setting.trial_ids]
        assert setting.estimate.value == pytest.approx(np.mean(values))
        assert setting.estimate.low < setting.estimate.value < setting.estimate.high


def test_differences_are_best_less_others_task_by_task(results: list[analysis.Results]) -> None:
    of_model = results[0]
    for setting, difference in zip(of_model.neighbours, of_model.differences, strict=False):
        expected = {task: of_model.best.per_task[task] - setting.per_task[task] for task in setting.per_task}
        assert difference.per_task == pytest.approx(expected)
    assert of_model.differences[-1].reference == trial_tables.LABELS_ONLY


def test_neighbours_are_one_step_away() -> None:
    levels = [[0.1, 0.2, 0.4], ["a", "b", "c"]]
    every = [(x, y) for x in levels[0] for y in levels[1]]
    assert set(analysis.neighbours((0.2, "a"), every, levels)) == {(0.1, "a"), (0.4, "a"), (0.2, "b"), (0.2, "c")}
    scattered = [(0.1, "b"), (0.4, "c"), (0.2, "a")]
    assert analysis.neighbours((0.2, "a"), scattered, levels) == [(0.1, "b"), (0.4, "c")]


def test_auc_ranks_where_the_space_asks_it() -> None:
    """One setting gives every note the first answer and ranks all notes rightly: best by AUC, worst by macro F1."""
    searches = {metric: _with_a_ranker(metric) for metric in ("dev_macro_f1", "dev_auc")}
    best = {}
    for metric, search in searches.items():
        of_model = analysis.results(search, search.models[0])
        assert of_model is not None
        best[metric] = of_model.best.values
        by_trials = {t["trial_id"]: t[metric] for t in search.of("llama")}
        for setting in of_model.settings:
            assert setting.estimate.value == pytest.approx(by_trials[setting.trial_ids[0]])
        assert of_model.best.values not in {n.values for n in of_model.neighbours}
    assert best == {"dev_macro_f1": BEST, "dev_auc": (RATIOS[0], LAYERS[-1])}


def _with_a_ranker(metric: str) -> Search:
    """The made search; the trial furthest from its optimum ranks rightly, and answers always alike."""
    search = made_search(("llama",), n_notes=20, seeds=(0,), metric=metric)
    (mine,) = [t for t in search.of("llama") if (t[f"config/{RATIO}"], t[f"config/{LAYER}"]) == (RATIOS[0], LAYERS[-1])]
    said = search.predictions.to_pylist()
    for row in said:
        if row["trial_id"] == mine["trial_id"]:
            first = next(task.options[0] for task in search.tasks if task.id == row["task_id"])
            row["scores"] = [-0.1, -1.0] if row["label"] == first else [-0.1, -0.2]
            row["predicted"] = first
    table = pa.Table.from_pylist(said, search.predictions.schema)
    (of_trial,) = replace(search, predictions=table).runs("llama", mine["trial_id"])
    scores = evaluate(of_trial, search.tasks)
    trials = search.trials.to_pylist()
    for row in trials:
        if row["trial_id"] == mine["trial_id"]:
            row |= {"dev_macro_f1": scores.macro_f1, "dev_auc": scores.auc}
    return replace(search, predictions=table, trials=pa.Table.from_pylist(trials, search.trials.schema))
