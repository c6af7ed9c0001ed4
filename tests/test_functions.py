"""The commands as functions: what they return, that they resume, and that a failure tells no note text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raypipe
from raypipe.errors import InputError, QuietError
from raypipe.findings import results
from raypipe.guard import process
from raypipe.settings import configfile
from tests.small_run import settings

CANARY = "Mario Rossi, nato a Pavia"


@pytest.fixture(autouse=True)
def open_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is that of all tests: it stays as it is (guard/test_process.py)."""
    monkeypatch.setattr(process, "protect", lambda: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(configfile.dump(settings(tmp_path / "runs")))
    return path


def test_from_notes_to_a_report(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / "runs/small"
    (backbone,) = raypipe.pretrain(config, say=False)
    assert backbone.facts["steps"] == 2
    with pytest.raises(InputError, match="it left a model"):
        backbone.rows()
    (scorer,) = raypipe.finetune(config, say=False)
    assert (scorer.name, scorer.folder) == ("finetune/scorer", folder / "finetune/scorer")
    (relevance,) = raypipe.attribute(config, say=False)
    assert relevance.said.startswith("attribute: 54 of 74 notes; 20 held out; ")
    assert relevance.rows().num_rows == relevance.facts["notes"] == 74
    assert len(list(raypipe.attributions(relevance.folder))) == 54
    (masks,) = raypipe.mask(config, say=False)
    assert "plans" in masks.rows().schema.names
    assert [made.name for made in raypipe.train(config, say=False)] == ["train/decselfmask"]
    names = [made.name for made in raypipe.finetune(config, say=False, arms=["sft", "decselfmask"])]
    assert names == ["finetune/scorer", "finetune/decselfmask"]
    answers = raypipe.evaluate(config, say=False)
    assert [made.rows().num_rows for made in answers] == [144, 144]
    before = masks.folder.joinpath("manifest.json").stat().st_mtime_ns

    reported = raypipe.run(config, say=False)
    assert capsys.readouterr().out == ""
    assert masks.folder.joinpath("manifest.json").stat().st_mtime_ns == before, "what is finished is not made again"
    assert reported.page == folder / "report/report.html"
    assert reported.summary in json.loads(reported.page.with_name("metrics.json").read_text())["summary"]
    sft, decselfmask, _ = reported.arms
    assert (sft.arm, sft.difference, sft.verdict) == ("sft", None, "reference")
    assert decselfmask.difference is not None
    assert f"{100 * decselfmask.macro_f1.value:.1f}" in str(reported).split("decselfmask")[1]
    again = raypipe.report(folder)
    assert (again.arms, again.summary) == (reported.arms, reported.summary)


def test_changes_are_those_of_set(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also a list, a path, a text with quotes, an umlaut and a picture, and nothing."""
    question = '\nIn "breve": perch\u00e9 \U0001f600 {question}'
    changes = {"name": "other", "data.max_labelled": None, "probe.layers": [0, 1], "prompt.question": question}
    changes["runs"] = config.parent / "runs"
    (backbone,) = raypipe.pretrain(config, changes)
    assert backbone.folder == config.parent / "runs/other/pretrain"
    written = configfile.load(backbone.folder.parent)
    assert (written.prompt.question, written.probe.layers) == (question, (0, 1))
    assert "pretrain: 2 steps" in capsys.readouterr().out


def test_every_problem_is_in_the_exception(config: Path) -> None:
    with pytest.raises(InputError) as refused:
        raypipe.run(config, {"attribution.layer": 99, "masking": 1, "evaluation.bootstrap": "many"})
    assert len(refused.value.problems) >= 2
    with pytest.raises(InputError, match=r"^changes: attribution\.layer: is 99, but the model has layers 0..3"):
        raypipe.pretrain(config, {"attribution.layer": 99})
    with pytest.raises(InputError, match=r"^changes: seed: not a usable value \(object\)$"):
        raypipe.pretrain(config, {"seed": object()})
    with pytest.raises(InputError, match="no such arm: nosuch; the config has sft, decselfmask"):
        raypipe.train(config, arms=["nosuch"])


def test_a_defect_tells_no_text(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(results, "write", defect)
    with pytest.raises(QuietError, match=r"^stage report: ValueError at raypipe/functions\.py:\d+$") as failed:
        raypipe.report(config)
    assert failed.value.__cause__ is failed.value.__context__ is None


def test_nothing_connects_although_the_libraries_were_imported_first() -> None:
    program = """
import huggingface_hub, raypipe
from raypipe.guard import process
try:
    raypipe.report("no.yaml")
except raypipe.functions.InputError:
    print(huggingface_hub.is_offline_mode(), huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)
try:
    huggingface_hub.HfApi(endpoint="http://127.0.0.1:9").model_info("gpt2")
except Exception as error:
    print(type(error).__name__)
process.allow_hub()
print(huggingface_hub.is_offline_mode())
"""
    user = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=user)
    assert done.stdout.split() == ["True", "True", "OfflineModeIsEnabled", "False"]


def test_import_is_light() -> None:
    said = "import raypipe, sys; print(sorted(raypipe.__all__), {'torch', 'ray', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("] set()")
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        raypipe.nosuch  # noqa: B018
