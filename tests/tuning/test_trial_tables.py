"""The tables of a search on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from raypipe.tuning import trial_tables
from raypipe.tuning.trial_tables import Search
from tests.tuning.searches import LAYER, RATIO, SEED, made_search


def test_the_metric_is_kept(tmp_path: Path) -> None:
    by_auc = made_search(("llama",), n_notes=10, seeds=(0,), metric="dev_auc")
    trial_tables.save(by_auc, tmp_path)
    loaded = trial_tables.load(tmp_path)
    assert (loaded.metric, loaded.metric_name) == ("dev_auc", "AUC")
    assert loaded.curves.column_names[-1] == "dev_auc"


def test_saved_and_loaded_alike(search: Search, tmp_path: Path) -> None:
    trial_tables.save(search, tmp_path / "tune")
    for folder in (tmp_path, tmp_path / "tune"):
        loaded = trial_tables.load(folder)
        assert loaded.trials.equals(search.trials)
        assert (loaded.tasks, loaded.models, loaded.doc) == (search.tasks, search.models, search.doc)
    facts = json.loads((tmp_path / "tune/study.json").read_text())
    earlier = [model | {"alone": {"t00000": [1.0, 2.0, 3.0]}, "proxy": None} for model in facts["models"]]
    del facts["metric"]
    (tmp_path / "tune/study.json").write_text(json.dumps(facts | {"models": earlier}))
    assert (loaded := trial_tables.load(tmp_path)).models == search.models, "written by an earlier version"
    assert loaded.metric == "dev_macro_f1"
    schema = pq.read_schema(tmp_path / "tune/trials.parquet")
    assert schema.names[: len(trial_tables.TRIALS.names)] == trial_tables.TRIALS.names
    assert {f"config/{key}" for key in (RATIO, LAYER, SEED)} < set(schema.names)
    assert {"seconds/mask", "seconds/finetune"} < set(schema.names)
