"""What the analysis says of a search whose truth is known; and that a page, tables and a notebook come of it."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raypipe.tuning import analysis, search_report, stability, trial_tables
from raypipe.tuning.trial_tables import FINISHED, ModelFacts, Search
from tests.tuning.searches import BEST, LAYER, LAYERS, RATIO, RATIOS, SEED, made_search

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def search() -> Search:
    return made_search()


@pytest.fixture(scope="module")
def results(search: Search) -> list[analysis.Results]:
    return [found for model in search.models if (found := analysis.results(search, model)) is not None]


def test_the_planted_optimum_is_found_and_its_neighbours(results: list[analysis.Results]) -> None:
    for found in results:
        assert found.keys == (RATIO, LAYER)
        assert found.best.values == BEST
        assert {n.values for n in found.neighbours} == {(0.15, 0.25), (0.45, 0.25), (0.3, 0.0), (0.3, 0.5)}
        assert len(found.settings) == len(RATIOS) * len(LAYERS)
        assert found.best.layer == 1


def test_seeds_are_runs_and_what_did_not_finish_does_not_count(search: Search, results: list[analysis.Results]) -> None:
    for setting in results[0].settings:
        assert setting.estimate.n_runs == 2
        assert len(setting.trial_ids) == 2
    finished = search.of("llama")
    assert len(finished) == len(search.of("llama", None)) - 2
    assert {trial["status"] for trial in finished} == {FINISHED}


def test_repeats_of_a_trial_are_no_seeds() -> None:
    """Three trials of two runs each: six runs, but three reconstructions."""
    search = made_search(("llama",), n_notes=10, seeds=(0, 1, 2), repeats=2)
    found = analysis.results(search, search.models[0])
    assert found is not None
    for estimate in (found.best.estimate, found.differences[0].estimate):
        assert estimate.n_runs == 6
        assert "few_seeds" in estimate.caveats


def test_one_run_of_a_setting_is_no_verdict() -> None:
    search = made_search(("llama",), seeds=(0,))
    assert "one run only" in (said := search_report.text(search))
    assert "note: one run only: the interval lacks run-to-run noise" in said
    assert "better" not in said
    page = search_report.html(search, [search_report._model_page(search, search.models[0])], {})
    assert "one run only: the interval lacks run-to-run noise" in page
    assert '<span class="tag">one run only</span>' in page


def test_a_verdict_needs_an_interval_and_tasks_that_agree(results: list[analysis.Results]) -> None:
    difference = results[0].differences[0]
    assert "too_few_tasks" in difference.estimate.caveats  # six tasks, and a comparison per setting
    clear = replace(difference, p_holm=0.01, estimate=replace(difference.estimate, low=0.01, high=0.2, caveats=()))
    tasks_disagree = replace(clear, p_holm=0.2)
    said = [search_report.Neighbour("x", d.estimate, d).verdict for d in (clear, tasks_disagree)]
    assert said == ["better", "no clear difference"]


def test_a_setting_is_worth_the_mean_of_its_trials(search: Search, results: list[analysis.Results]) -> None:
    for setting in results[0].settings:
        values = [trial["dev_macro_f1"] for trial in search.of("llama") if trial["trial_id"] in setting.trial_ids]
        assert setting.estimate.value == pytest.approx(np.mean(values))
        assert setting.estimate.low < setting.estimate.value < setting.estimate.high


def test_differences_are_best_less_others_task_by_task(results: list[analysis.Results]) -> None:
    found = results[0]
    for setting, difference in zip(found.neighbours, found.differences, strict=False):
        expected = {task: found.best.per_task[task] - setting.per_task[task] for task in setting.per_task}
        assert difference.per_task == pytest.approx(expected)
    assert found.differences[-1].reference == trial_tables.LABELS_ONLY


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


def test_stability_is_high_where_tasks_share_a_truth_and_low_where_not(search: Search) -> None:
    found = analysis.results(search, search.models[0])
    assert found is not None
    agreed = stability.over_tasks(found)
    assert agreed is not None
    assert agreed.value > 0.6
    assert agreed.p < 0.01
    rng = np.random.default_rng(0)
    noise = tuple(replace(s, per_task={task: rng.random() for task in s.per_task}) for s in found.settings)
    nothing = stability.over_tasks(replace(found, settings=noise))
    assert nothing is not None
    assert nothing.value < 0.45


def test_models_are_compared_on_the_settings_they_share(results: list[analysis.Results]) -> None:
    (found,) = stability.between_models(results)
    assert found.n_settings == len(RATIOS) * len(LAYERS)
    assert found.value > 0.5
    fewer = replace(results[1], settings=results[1].settings[:2])
    assert stability.between_models([results[0], fewer]) == []


def test_neighbours_are_one_step_away() -> None:
    levels = [[0.1, 0.2, 0.4], ["a", "b", "c"]]
    every = [(x, y) for x in levels[0] for y in levels[1]]
    assert set(analysis.neighbours((0.2, "a"), every, levels)) == {(0.1, "a"), (0.4, "a"), (0.2, "b"), (0.2, "c")}
    scattered = [(0.1, "b"), (0.4, "c"), (0.2, "a")]
    assert analysis.neighbours((0.2, "a"), scattered, levels) == [(0.1, "b"), (0.4, "c")]


def test_saved_and_loaded_alike(search: Search, tmp_path: Path) -> None:
    trial_tables.save(search, tmp_path / "tune")
    for folder in (tmp_path, tmp_path / "tune"):
        found = trial_tables.load(folder)
        assert found.trials.equals(search.trials)
        assert (found.tasks, found.models, found.doc) == (search.tasks, search.models, search.doc)
    facts = json.loads((tmp_path / "tune/study.json").read_text())
    earlier = [model | {"alone": {"t00000": [1.0, 2.0, 3.0]}, "proxy": None} for model in facts["models"]]
    (tmp_path / "tune/study.json").write_text(json.dumps(facts | {"models": earlier}))
    assert trial_tables.load(tmp_path).models == search.models, "written by an earlier version"
    schema = pq.read_schema(tmp_path / "tune/trials.parquet")
    assert schema.names[: len(trial_tables.TRIALS.names)] == trial_tables.TRIALS.names
    assert {f"config/{key}" for key in (RATIO, LAYER, SEED)} < set(schema.names)
    assert {"seconds/mask", "seconds/finetune"} < set(schema.names)


def test_the_page_and_the_tables(search: Search, tmp_path: Path) -> None:
    page = search_report.write(search, tmp_path).read_text()
    files = {path.name for path in tmp_path.iterdir()}
    assert {"heat_map_llama.png", "heat_map_qwen3.png", "effects.png", "curves_llama.png", "settings.parquet"} <= files
    with (tmp_path / "settings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(RATIOS) * len(LAYERS)
    assert (float(rows[0][f"config/{RATIO}"]), float(rows[0][f"config/{LAYER}"])) == BEST
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "1 \u00d7 RuntimeError at raypipe/x.py:1" in text
    assert "one trial 17.0 s 17.0 s" in text
    assert "once for all: finetune/scorer 12.0 s 12.0 s" in text
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    said = search_report.text(search)
    assert "ratio 0.3, layer 0.25" in said


def test_what_a_search_calls_itself_cannot_become_markup(search: Search, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    models = tuple(replace(model, family=evil) for model in search.models)
    page = search_report.write(replace(search, name=evil, doc=evil, models=models), tmp_path).read_text()
    assert evil not in page
    assert "&lt;img src=x" in page


def test_a_search_without_a_finished_trial_has_a_page(search: Search, tmp_path: Path) -> None:
    none = replace(
        search,
        trials=search.trials.filter(pc.equal(search.trials["status"], "failed")),
        curves=search.curves.slice(0, 0),
        models=(ModelFacts("llama", "llama", 4, "decselfmask", {}),),
    )
    assert "1 failed" in search_report.text(none)
    assert search_report.write(none, tmp_path).exists()


def test_the_notebook_runs(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    trial_tables.save(search, tmp_path / "tune")
    monkeypatch.setenv("RAYPIPE_SEARCH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "notebooks/tune_report.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "committed without outputs"
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert "ratio 0.3, layer 0.25" in shown
    assert "image/png" in shown
