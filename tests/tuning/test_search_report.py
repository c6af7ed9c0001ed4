"""The page, the tables and the notebook of a search."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from raypipe.tuning import analysis, search_report
from raypipe.tuning.backbones import _slug
from raypipe.tuning.trial_tables import ModelFacts, Search
from tests.spreadsheets import formulas
from tests.tuning.searches import BEST, LAYER, LAYERS, RATIO, RATIOS, made_search


def _text(search: Search) -> str:
    return search_report.text(search, search_report.model_pages(search))


def _write(search: Search, folder: Path) -> Path:
    return search_report.write(search, search_report.model_pages(search), folder)


def test_one_run_of_a_setting_is_no_verdict() -> None:
    search = made_search(("llama",), seeds=(0,))
    assert "one run only" in (said := _text(search))
    assert "note: one run only: the interval lacks run-to-run noise" in said
    assert " better" not in said.replace("clearly better than 0 of", "")
    page = search_report.html(search, search_report.model_pages(search), {})
    assert "one run only: the interval lacks run-to-run noise" in page
    assert '<span class="tag">one run only</span>' in page


def test_a_verdict_needs_an_interval_and_tasks_that_agree(results: list[analysis.Results]) -> None:
    difference = results[0].differences[0]
    assert "too_few_tasks" in difference.estimate.caveats  # six tasks, and a comparison per setting
    clear = replace(difference, p_holm=0.01, estimate=replace(difference.estimate, low=0.01, high=0.2, caveats=()))
    tasks_disagree = replace(clear, p_holm=0.2)
    said = [search_report.Neighbour("x", d.estimate, d).verdict for d in (clear, tasks_disagree)]
    assert said == ["better", "no clear difference"]


def test_the_page_and_the_tables(search: Search, tmp_path: Path) -> None:
    page = _write(search, tmp_path).read_text()
    files = {path.name for path in tmp_path.iterdir()}
    assert {"heat_map_llama.png", "heat_map_qwen3.png", "effects.png", "curves_llama.png", "settings.parquet"} <= files
    with (tmp_path / "settings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(RATIOS) * len(LAYERS)
    assert (float(rows[0][f"config/{RATIO}"]), float(rows[0][f"config/{LAYER}"])) == BEST
    assert formulas(tmp_path / "settings.csv") == formulas(tmp_path / "trials.csv") == []
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "1 \u00d7 RuntimeError at raypipe/x.py:1" in text
    assert "one trial 17.0 s 17.0 s" in text
    assert "once for all: finetune/scorer 12.0 s 12.0 s" in text
    assert page.count("<script") == 1
    assert "24 settings of 2 models were measured in 48 finished trials" in text
    assert "http" not in page.replace("http-equiv", "")
    said = _text(search)
    assert "ratio 0.3, layer 0.25" in said


def test_the_page_names_what_ranks(tmp_path: Path) -> None:
    search = made_search(("llama",), n_notes=10, seeds=(0,), metric="dev_auc")
    page = _write(search, tmp_path).read_text()
    assert "AUC in points" in page
    assert "Mean dev AUC" in page
    assert "dev macro F1" not in page
    with (tmp_path / "settings.csv").open() as file:
        assert "dev_auc" in next(csv.reader(file))
    assert "AUC 9" in _text(search)


def test_what_a_search_calls_itself_cannot_become_markup(search: Search, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    models = tuple(replace(model, family=evil) for model in search.models)
    page = _write(replace(search, name=evil, doc=evil, models=models), tmp_path).read_text()
    assert evil not in page
    assert "&lt;img src=x" in page


def test_what_a_model_is_called_cannot_become_a_formula(tmp_path: Path) -> None:
    _write(made_search((_slug("/models/=-1+1"),), seeds=(0,)), tmp_path)
    assert formulas(tmp_path / "trials.csv") == formulas(tmp_path / "settings.csv") == []
    assert [_slug(path)[0] for path in ("/models/-x", "/models/@sum(a1)", "/models/+", "/models/=x")] == [
        "x",
        "s",
        "m",
        "x",
    ]


def test_a_search_without_a_finished_trial_has_a_page(search: Search, tmp_path: Path) -> None:
    none = replace(
        search,
        trials=search.trials.filter(pc.equal(search.trials["status"], "failed")),
        curves=search.curves.slice(0, 0),
        models=(ModelFacts("llama", "llama", 4, "decselfmask", {}),),
    )
    assert "1 failed" in _text(none)
    assert _write(none, tmp_path).exists()
