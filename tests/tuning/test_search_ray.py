"""`raypipe tune` as a user runs it: killed, started again, with trials that fail, and on a folder that is not his."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raypipe.errors import InputError
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.tuning import search, space
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import plans
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
N_NOTES = 60
RATIOS, LAYERS = (0.2, 0.4), (0, 1)
KEYS = ("arms.relevant.masking.ratio", "attribution.layer")
SPACE = """
from ray import tune
PARAM_SPACE = {
    "arms.relevant.masking.ratio": tune.grid_search([0.2, 0.4]),
    "attribution.layer": tune.grid_search([0, 1]),
}
"""


def _text(n: int) -> str:
    sign = "presenta dispnea" if n % 2 else "nega dispnea"
    return f"Paziente di anni {20 + n}, {sign} e febbre da {n} giorni, canarino{n} in anamnesi."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 notes, one task, a tiny random backbone, and a space of four trials."""
    folder = tmp_path_factory.mktemp("tune")
    tiny_model("llama").save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    ids = [f"n-{i:03d}" for i in range(N_NOTES)]
    pq.write_table(pa.table({"note_id": ids, "text": [_text(n) for n in range(N_NOTES)]}), folder / "notes.parquet")
    _labels(folder, "labels", test=["sì", "no"])
    (folder / "tasks.yaml").write_text('tasks:\n  - {id: t, question: "dispnea", options: ["sì", "no"]}\n')
    (folder / "space.py").write_text(SPACE)
    settings: dict[str, Any] = {
        "name": "search",
        "runs": str(folder / "runs"),
        "data": {"notes": str(folder / "notes.parquet"), "labels": str(folder / "labels.parquet"),
                 "tasks": str(folder / "tasks.yaml")},
        "model": {"path": str(folder / "tiny")},
        "prompt": {"max_tokens": 128},
        "attribution": {"reduction": "l2"},
        "finetune": {"max_steps": 6, "learning_rate": 0.01, "epochs": 6.0},
        "train": {"max_steps": 2},
        "arms": {"sft": {}, "relevant": {"masking": {"ratio": 0.2}}},
        "evaluation": {"bootstrap": 100},
        "resources": {"ray": False},
        "tune": {"max_failures": 0, "concurrent_trials": 1},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def _labels(folder: Path, name: str, test: list[str]) -> None:
    ids = [f"n-{i:03d}" for i in range(30)]
    labels = ["sì", "no"] * 10 + test * 5
    splits = ["train"] * 10 + ["dev"] * 10 + ["test"] * 10
    pq.write_table(
        pa.table({"task_id": ["t"] * 30, "note_id": ids, "label": labels, "split": splits}), folder / f"{name}.parquet"
    )


def _start(folder: Path, *more: str, space: str = "space.py") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "raypipe.cli", "tune", "--config", str(folder / "config.yaml")]
    return subprocess.Popen(
        [*command, "--space", str(folder / space), *more], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _finish(folder: Path, *more: str, space: str = "space.py") -> tuple[int, str]:
    process = _start(folder, *more, space=space)
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def _records(study: Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in study.glob("trials/*/trial.json")]
    return {record["trial_id"]: record for record in records}


@pytest.fixture(scope="module")
def study(folder: Path) -> Path:
    """A search that was killed in the middle and started again."""
    study = folder / "runs/search/tune/tiny"
    process = _start(folder)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            if sum(record["status"] == "finished" for record in _records(study).values()) >= 2:
                break
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = {path.parent.name: path.stat().st_mtime_ns for path in study.glob("trials/*/trial.json")
              if json.loads(path.read_text())["status"] == "finished"}  # fmt: skip
    assert 0 < len(before) < 4, "the kill must land in the middle"
    code, out = _finish(folder)
    assert code == 0, out
    after = {path.parent.name: path.stat().st_mtime_ns for path in study.glob("trials/*/trial.json")}
    assert {name: after[name] for name in before} == before, "finished trials are not run again"
    return study


def test_killed_and_started_again_loses_nothing(study: Path) -> None:
    records = _records(study)
    assert {record["status"] for record in records.values()} == {"finished"}
    assert sorted(record["attempts"] for record in records.values())[:2] == [1, 1]
    params = {tuple(record["params"].values()) for record in records.values()}
    assert params == {(ratio, layer) for ratio in RATIOS for layer in LAYERS}
    table = pq.read_table(study.parent / "trials.parquet")
    assert sorted(table["trial_id"].to_pylist()) == sorted(records)
    predictions = pq.read_table(study.parent / "predictions.parquet")
    assert set(predictions["note_id"].to_pylist()) == {f"n-{i:03d}" for i in range(10, 20)}, "dev notes alone"


def test_the_same_command_again_runs_nothing(folder: Path, study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.glob("trials/*/trial.json")}
    code, out = _finish(folder)
    assert code == 0, out
    assert {path: path.stat().st_mtime_ns for path in study.glob("trials/*/trial.json")} == before
    assert (study.parent / "report/report.html").exists()
    assert (study.parent / "report/heat_map_tiny.png").exists()


def test_relevance_was_computed_once(study: Path) -> None:
    assert (study / "base/attribute/manifest.json").exists()
    for record in _records(study).values():
        assert not any(step.startswith(("attribute", "finetune/scorer", "pretrain")) for step in record["steps"])
        assert any(step.startswith("mask") for step in record["steps"])


def test_a_trial_is_what_its_config_says_by_hand(study: Path, tmp_path: Path) -> None:
    """The config that a trial leaves, as a run of its own with nothing shared: the same predictions to the bit."""
    record = next(r for r in _records(study).values() if tuple(r["params"].values()) == (0.4, 1))
    trial = study / "trials" / record["trial_id"]
    settings = configfile.load(trial / "config.yaml", [f"runs={tmp_path}", "name=hand", "attribution.keep=layer"])
    run = Run(settings).open()
    driver.run_all(run)
    keys = [("task_id", "ascending"), ("note_id", "ascending")]
    mine = pq.read_table(run.step("evaluate/relevant").data).sort_by(keys)
    assert mine.equals(pq.read_table(trial / "evaluate/relevant.parquet").sort_by(keys))


def test_best_is_a_config_for_the_pipeline(study: Path) -> None:
    best = configfile.load(study / "best.yaml")
    rows = pq.read_table(study.parent / "trials.parquet").to_pylist()
    assert best.evaluation.split == "test"
    assert set(best.arms) == {"sft", "relevant"}
    masking = best.arms["relevant"].masking
    assert masking is not None
    top = max(row["dev_macro_f1"] for row in rows)
    ties = {tuple(row[f"config/{key}"] for key in KEYS) for row in rows if row["dev_macro_f1"] == top}
    assert (masking.ratio, best.attribution.layer) in ties


def test_no_note_text_in_any_file_of_tune(study: Path) -> None:
    looked_at = 0
    for path in [*(study / "ray").rglob("*"), *study.parent.glob("*.*"), *(study.parent / "report").rglob("*")]:
        if path.is_file():
            looked_at += 1
            content = path.read_bytes()
            assert b"canarino" not in content, path.name
            assert b"dispnea e febbre" not in content, path.name
    assert looked_at > 12
    assert list((study / "ray").rglob("events.out.tfevents*")), "TensorBoard reads the run directory"


def test_another_space_is_refused(folder: Path, study: Path) -> None:
    (folder / "other.py").write_text(SPACE.replace("[0.2, 0.4]", "[0.2, 0.5]"))
    code, out = _finish(folder, space="other.py")
    assert code == 2
    assert "space.params.arms.relevant.masking.ratio" in out
    code, out = _finish(folder, "--set", "train.max_steps=3")
    assert code == 2
    assert "(train.max_steps)" in out
    assert "Traceback" not in out


def test_state_of_another_user_is_not_loaded(folder: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's state is pickle; the check stands before Ray starts."""
    written = configfile.written(folder / "config.yaml").value
    searched = plans(space.load(folder / "space.py"), backbones(written, []))
    monkeypatch.setattr(os, "getuid", lambda: os.stat(study).st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        search.tune(searched, print)


def test_test_labels_make_no_difference_and_failures_end_in_an_exit_code(folder: Path, study: Path) -> None:
    """The search with the test labels turned round, a scheduler, and trials in which no word may be masked."""
    _labels(folder, "turned", test=["no", "sì"])
    (folder / "failing.py").write_text(
        "from ray import tune\nfrom ray.tune.schedulers import ASHAScheduler\n"
        'PARAM_SPACE = {"arms.relevant.masking.ratio": tune.grid_search([0.2, 0.4]), "attribution.layer": 0,\n'
        '               "arms.relevant.masking.phi_patterns": tune.grid_search([[], [".+"]])}\n'
        'SCHEDULER = ASHAScheduler(grace_period=20)\nMETRIC = "dev_auc"\n'
    )
    labels = f"data.labels={folder / 'turned.parquet'}"
    code, out = _finish(
        folder, "--set", labels, "--set", "name=turned", "--set", "tune.max_failures=1", space="failing.py"
    )
    assert code == 4, out
    assert "Traceback" not in out
    turned = list(_records(folder / "runs/turned/tune/tiny").values())
    by_status = {status: [r for r in turned if r["status"] == status] for status in ("finished", "failed")}
    assert [r["params"]["arms.relevant.masking.phi_patterns"] for r in by_status["failed"]] == [[".+"], [".+"]]
    assert all("E_NO_SPAN" in r["error"] for r in by_status["failed"])
    assert [r["attempts"] for r in by_status["failed"]] == [2, 2], "tried again once"
    assert [r["attempts"] for r in by_status["finished"]] == [1, 1]
    assert out.count("E_NO_SPAN") >= 2
    mine = {r["params"]["arms.relevant.masking.ratio"]: r for r in by_status["finished"]}
    assert set(mine) == set(RATIOS)
    for record in _records(study).values():
        ratio, layer = record["params"].values()
        if layer == 0:
            assert mine[ratio]["dev_macro_f1"] == record["dev_macro_f1"]
            assert mine[ratio]["tasks"] == record["tasks"]
            assert [epoch for epoch, _ in mine[ratio]["curve"]] == [1, 2, 3, 4, 5, 6], "a dev score after each epoch"
