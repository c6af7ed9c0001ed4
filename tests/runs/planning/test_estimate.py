"""What a plan says against what a small run then records. No real time is compared: benchmarks/bench_plan.py does."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raypipe import cli
from raypipe.runs import driver
from raypipe.runs.planning import estimate, figures, rates
from raypipe.runs.planning.options import Options
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.training import examples
from raypipe.training.examples import STORED
from tests.small_run import settings

STATED = {"peak": 1e12, "share": 0.5}  # nothing is measured, so that a plan takes a second or two
ARMS = {
    "sft": {},
    "decselfmask": {"masking": {"ratio": 0.2}},
    "mixed": {
        "masking": {"strategy": "random_word", "match_ratio_to": "decselfmask", "draws": 2, "format": "single"},
        "label_share": 0.3,
    },
    "taught": {"pseudo_labels": {"confidence": 0.01, "max_imbalance": None}},
}
SPACE = """\
from ray import tune
PARAM_SPACE = {"arms.decselfmask.masking.ratio": tune.grid_search([0.1, 0.2, 0.3])}
"""
TRAININGS = ["pretrain", "finetune/scorer", "train/decselfmask", "train/mixed", "train/taught"]
ROWS = ["pretrain/rows", "finetune/rows", "mask", "train/rows", "answer", "evaluate/scorer"]


@dataclass(frozen=True)
class Both:
    """A plan, and the run that was made after it."""

    plan: figures.Plan
    run: Run
    left: list[Path]  # what planning left in the folder of runs

    def step(self, name: str) -> figures.Step:
        return next(step for step in self.plan.steps if step.name == name)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    runs = tmp_path_factory.mktemp("runs")
    # a whole epoch: which 16 rows two steps take hangs on a single row more or less
    of_run = settings(runs, arms=ARMS, train__lora={"rank": 4, "alpha": 8}, train__max_steps=None)
    planned = estimate.plan(Run(of_run), Options(**STATED))
    left = list(runs.rglob("*"))
    run = Run(of_run).open()
    driver.make(run, ["pretrain", "evaluate/scorer", *(f"train/{arm}" for arm in ARMS if arm != "sft")])
    return Both(planned, run, left)


def test_a_plan_leaves_nothing_behind(both: Both) -> None:
    assert both.left == []


def test_its_steps_are_those_of_the_job(both: Both) -> None:
    shared = {"corpus", "pretrain/rows", "pretrain", "finetune/rows", "finetune/scorer", "mask", "train/rows"}
    of_arms = {f"{kind}/{arm}" for kind in ("train", "finetune", "evaluate") for arm in ARMS if arm != "sft"}
    steps = [step.name for step in both.plan.steps]
    assert set(steps) == shared | of_arms | {"answer", "pseudo", "evaluate/scorer"}
    assert steps.index("mask") < steps.index("train/rows") < steps.index("train/decselfmask")


def test_notes_are_counted_exactly(both: Both) -> None:
    assert both.plan.corpus.notes == both.run.corpus.facts["notes"]
    errors = pq.read_table(both.run.step("mask").data, columns=["error"])["error"]
    n_held_out = pc.sum(pc.equal(errors, "HELD_OUT")).as_py()
    assert both.plan.corpus.to_learn_from == pytest.approx(len(errors) - n_held_out, abs=2)  # near copies
    assert both.plan.corpus.tasks == len(both.run.corpus.tasks)


def test_tokens_are_those_that_the_scorer_saw(both: Both) -> None:
    stored = pq.read_table(both.run.step("mask").data, columns=["n_tokens", "n_cut_tokens"])
    n_tokens = sum(pc.sum(stored[name]).as_py() for name in stored.column_names)
    assert both.plan.corpus.tokens.value == pytest.approx(n_tokens, rel=0.1)
    assert both.plan.corpus.tokens.low == both.plan.corpus.tokens.high  # all notes were read


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_do_the_arithmetic_that_was_planned(both: Both, name: str) -> None:
    manifest, step = both.run.step(name).manifest, both.step(name)
    assert step.optimiser_steps == manifest["steps"]
    assert step.flops == pytest.approx(manifest["flops"], rel=0.05)
    assert step.tokens == pytest.approx(manifest["tokens"], rel=0.05)


@pytest.mark.parametrize("name", ROWS)
def test_bytes_of_rows(both: Both, name: str) -> None:
    stored = sum(path.stat().st_size for path in both.run.step(name).path.rglob("*.parquet"))
    dead_letters = both.run.step(name).path / "dead_letters.parquet"
    stored -= dead_letters.stat().st_size if dead_letters.exists() else 0
    assert both.step(name).bytes == pytest.approx(stored, rel=0.1)


def test_scratch_is_the_file_of_rows_that_workers_map(both: Both, tmp_path: Path) -> None:
    examples.store(both.run.step("train/rows").data, "decselfmask", tmp_path / "rows.arrow")
    stored = (tmp_path / "rows.arrow").stat().st_size
    assert both.step("train/decselfmask").scratch_bytes == pytest.approx(stored, rel=0.1)


@pytest.mark.parametrize("name", ["pretrain", "train/decselfmask", "finetune/scorer"])
def test_bytes_of_models(both: Both, name: str) -> None:
    folder = both.run.step(name).path
    stored = sum(path.stat().st_size for path in [*(folder / "model").iterdir(), *folder.rglob("adapter_*tensors")])
    assert both.step(name).bytes == pytest.approx(stored, rel=0.1)


def test_masked_rows_are_as_many(both: Both) -> None:
    stored = pq.read_table(both.run.step("train/rows").data, columns=STORED.names)
    assert both.step("train/rows").rows == pytest.approx(len(stored), rel=0.1)


def test_what_is_finished_is_not_planned(both: Both) -> None:
    arms = settings(Path("."), arms=ARMS | {"span": {"masking": {"strategy": "span"}}}).arms
    added = both.run.settings.model_copy(update={"arms": arms})
    names = [step.name for step in estimate.plan(Run(added), Options(**STATED)).steps]
    assert {"mask", "train/span", "finetune/decselfmask"} <= set(names)
    assert not {"pretrain", "finetune/scorer", "train/decselfmask"} & set(names)


def test_a_stated_number_of_notes_scales_what_is_made_of_them(both: Both) -> None:
    fresh = Run(both.run.settings.model_copy(update={"name": "other"}))
    many = {s.name: s for s in estimate.plan(fresh, Options(**STATED, notes=54_000)).steps}
    few = {s.name: s for s in estimate.plan(fresh, Options(**STATED, notes=54)).steps}
    assert (many["mask"].flops or 0) == pytest.approx(1000 * (few["mask"].flops or 0))
    assert many["train/rows"].bytes == pytest.approx(1000 * few["train/rows"].bytes)
    assert many["finetune/scorer"] == few["finetune/scorer"]  # labels stay as they are
    assert many["mask"].shards == 211  # 54,000 notes in blocks of 256


def test_rates_that_are_stated_are_marked_and_divide_the_arithmetic(both: Both) -> None:
    fresh = Run(both.run.settings.model_copy(update={"name": "other"}))
    planned = estimate.plan(fresh, Options(**STATED, gpus=(1, 4)))
    for step, stage in zip(planned.steps, planned.stages, strict=True):
        if step.kind != "rows":
            assert "stated peak" in stage.source
            assert stage.seconds == pytest.approx((step.flops or 0) / 5e11)
    assert [of.gpus for of in planned.on_gpus] == [1, 4]


def test_without_a_stated_peak_the_model_is_timed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that goes on by a second each time it is read: 16 notes take one, and so does an optimiser step."""
    ticks = itertools.count()
    monkeypatch.setattr(rates, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    planned = estimate.plan(Run(settings(tmp_path)), Options())
    expected = {"training": lambda step: step.optimiser_steps, "attribution": lambda step: step.rows / rates.NOTES}
    stages = {stage.name: stage for stage in planned.stages}
    timed = [step for step in planned.steps if step.kind in expected]
    assert {step.kind for step in timed} == set(expected)
    for step in timed:
        assert stages[step.name].source.startswith("measured on this machine (cpu) with random weights"), step.name
        assert stages[step.name].seconds == pytest.approx(expected[step.kind](step), rel=0.3), step.name


def test_the_command_prints_a_table_or_json(both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(configfile.dump(both.run.settings.model_copy(update={"name": "other"})))
    cli.plan(config, gpus="1,8", peak=1e12, memory="80GB")
    table = capsys.readouterr().out
    assert "train/decselfmask" in table
    assert "raypipe compare" in table
    (tmp_path / "space.py").write_text(SPACE)
    cli.plan(config, peak=1e12, space=tmp_path / "space.py", as_json=True)
    planned = json.loads(capsys.readouterr().out)
    assert planned["corpus"]["tasks"] == 12
    seconds = {stage["name"]: stage["seconds"] for stage in planned["stages"]}
    of_trial = sum(seconds[f"{step}/decselfmask"] for step in ("train", "finetune", "evaluate"))
    *_, search = planned["several"]
    assert (search["runs"], search["gpu_hours"]) == (3, pytest.approx(3 * of_trial / 3600))
    assert not (both.run.folder.parent / "other").exists()
