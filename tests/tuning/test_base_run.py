"""What the trials of a study share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.errors import InputError
from raypipe.notes.corpus import Corpus
from raypipe.runs import driver, making, steps
from raypipe.runs.run import Run
from raypipe.runs.steps import named
from raypipe.settings import configfile
from raypipe.tuning import base_run, search
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import configure, plans
from raypipe.tuning.space import Space
from tests.masking.cases import STATISTICS
from tests.small_run import settings
from tests.tuning.demo import DEMO, RATIO


def test_the_base_run_has_the_constants_of_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (backbone,) = backbones(configfile.written(DEMO, [f"runs={tmp_path}"]).value, [])
    (plan,) = plans(Space("mine.py", {"attribution.reduction": "sum", RATIO: {"grid_search": [0.1, 0.2]}}), [backbone])
    monkeypatch.setattr(Run, "open", lambda run: run)
    monkeypatch.setattr(base_run, "_share", lambda run: None)
    for function in ("make", "evaluate"):
        monkeypatch.setattr(driver, function, lambda *_: None)
    base = base_run.prepare(plan, tmp_path, print)
    assert base.settings.attribution.reduction == "sum"
    assert (
        base.settings.attribution
        == search.context_of(plan, tmp_path).settings({**plan.constants, RATIO: 0.1}).attribution
    )


def test_auc_asks_for_two_labels_among_the_dev_notes_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (backbone,) = backbones(configfile.written(DEMO, [f"runs={tmp_path}"]).value, [])
    (plan,) = plans(Space("mine.py", {RATIO: {"grid_search": [0.1, 0.2]}}, metric="dev_auc"), [backbone])
    monkeypatch.setattr(base_run, "_share", lambda run: pytest.fail("training has begun"))
    labels = pa.table({"task_id": ["t", "u", "t"], "label": ["yes", "no", "yes"]})
    monkeypatch.setattr(Corpus, "labels_of", lambda *_: labels)
    with pytest.raises(InputError, match=r"mine\.py: METRIC: dev_auc needs dev notes of two labels"):
        base_run.prepare(plan, tmp_path, print)
    labels = pa.table({"task_id": ["t", "t"], "label": ["yes", "no"]})
    with pytest.raises(pytest.fail.Exception, match="training has begun"):
        base_run.prepare(plan, tmp_path, print)


def test_trials_find_the_counts_of_the_base_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those of another layer's relevance, of which all are stored."""
    of_corpus_alone = replace(named("statistics").kind, needs=("corpus",))
    table = tuple(of_corpus_alone if step.name == "statistics" else step for step in steps.STEPS)
    monkeypatch.setattr(steps, "STEPS", table)
    monkeypatch.setattr(making.corpus_counts, "compute", lambda *_: STATISTICS)
    by_relevance = {"strategy": "mslm", "mslm": {"terms": "attribution"}}
    cases = [({"strategy": "pmi"}, 1, True), (by_relevance, 0, True), (by_relevance, 1, False)]
    for number, (masking, layer, is_shared) in enumerate(cases):
        arms = {"a": {"masking": masking}}
        base = Run(settings(tmp_path, name=f"base{number}", arms=arms, attribution__keep="all")).open()
        driver.make(base, ["statistics"])
        more = configure(base.settings, {"runs": str(tmp_path / "trials"), "attribution.layer": layer, "train.seed": 1})
        assert Run(more, base=base).open().is_done("statistics") == is_shared
