"""A comparison: its cells, its seeds, its gates, and that it does nothing twice."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from copy import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raypipe import cli, rows
from raypipe.errors import ExitCode, InputError
from raypipe.evaluation import uncertainty
from raypipe.findings import results
from raypipe.findings.gates import gates
from raypipe.findings.predictions import Pooled, predictions
from raypipe.notes.tasks import Task
from raypipe.runs import compare, driver
from raypipe.runs.failures import Failures
from raypipe.runs.names import TFIDF
from raypipe.runs.run import Run
from raypipe.settings.config import Arm, Conformal
from tests.small_run import settings

TASK = Task("t", "binary", "?", ("yes", "no"), ("yes", "no"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[compare.Cell, Run]]:
    changes = {"repeats": 2, "comparison__seeds": 2, "comparison__budgets": (12,)}
    changes |= {"finetune__max_steps": None, "finetune__epochs": 1.6}
    changes["arms"] = {"sft": {}, "decselfmask": {"masking": {"ratio": 0.2}, "train": {"seed": 5}}}
    run = Run(settings(tmp_path_factory.mktemp("runs"), **changes)).open()
    return run, compare.compare(run)


def test_cells_are_seeds_times_budgets_and_a_quarter(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    _, cells = compared
    assert [cell.name for cell in cells] == [f"seed{s}-{b}" for s in (0, 1) for b in ("all", 12, 6)]
    assert [list(cell.settings.arms) for cell in cells.values()][:3] == [["sft", "decselfmask"]] * 2 + [["sft"]]


def test_cells_differ_in_labels_order_and_masks(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    _, cells = compared
    of = {cell.name: run for cell, run in cells.items()}
    notes = {name: set(run.corpus.labels.filter(pc.equal(run.corpus.labels["split"], "train"))["note_id"].to_pylist())
             for name, run in of.items()}  # fmt: skip
    assert notes["seed0-6"] < notes["seed0-12"] < notes["seed0-all"]  # nested
    assert notes["seed0-12"] != notes["seed1-12"]
    assert notes["seed0-all"] == notes["seed1-all"]
    plans = [
        pq.read_table(of[name].step("mask").data).sort_by("note_id")["plans"] for name in ("seed0-all", "seed1-all")
    ]
    assert plans[0] != plans[1]
    trainings = [of[name].settings.training_of("decselfmask") for name in ("seed0-all", "seed1-all")]
    assert [training.seed for training in trainings] == [5, 5 + compare.SEED_STRIDE], "an arm's own, too"
    test = [set(run.corpus.labels.filter(pc.equal(run.corpus.labels["split"], "test"))["note_id"].to_pylist())
            for run in of.values()]  # fmt: skip
    assert all(ids == test[0] for ids in test)


def test_backbone_is_shared_and_steps_of_fine_tuning_are_alike(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    """24 notes in batches of 8 are 3 steps an epoch, 12 notes 2, 6 notes 1."""
    run, cells = compared
    assert {cell.step("pretrain").path for cell in cells.values()} == {run.folder / "pretrain"}
    students = [cell.step(f"finetune/{student}") for cell in cells.values() for student in ("scorer", "sft@1")]
    assert {step.manifest["steps"] for step in students} == {5}
    assert {cell.settings.finetune.max_steps for cell in cells.values()} == {None, 5}


def test_what_cannot_be_compared_is_refused_at_once(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    run, _ = compared
    for key, value, said in (("budgets", (12, 24), "24. must be less than the 24"), ("pairs", (("sft", "x"),), "'x'")):
        asked = run.settings.comparison.model_copy(update={key: value})
        with pytest.raises(InputError, match=said):
            compare.compare(Run(run.settings.model_copy(update={"comparison": asked})).open())
    masked_only = {"decselfmask": run.settings.arms["decselfmask"]}
    with pytest.raises(InputError, match="arms: a comparison needs an arm of labels alone"):
        compare.compare(Run(run.settings.model_copy(update={"arms": masked_only})).open())


def test_the_report_of_a_comparison_is_made_again_from_its_cells(
    compared: tuple[Run, dict[compare.Cell, Run]],
) -> None:
    run, cells = compared
    again = compare.opened(Run(run.settings).open())
    assert again.keys() == cells.keys()
    first, second = (results.build(run, found) for found in (cells, again))
    assert first.arms == second.arms
    assert first.gates == second.gates


def test_models_of_repeats_are_not_kept(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    _, cells = compared
    for cell in cells.values():
        assert (cell.folder / "finetune/scorer/model").exists()
        assert not (cell.folder / "finetune/sft@1/model").exists()


def test_the_table_has_every_run(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    run, cells = compared
    built = results.build(run, cells)
    assert {row.name: row.macro_f1.n_runs for row in built.arms} == {"sft": 4, "decselfmask": 4, TFIDF: 2}
    assert list(built.budgets) == ["6", "12", "all"]
    assert set(built.budgets["6"]) == {"sft", TFIDF}
    of = {cell.name: found for cell, found in cells.items()}
    alone, beside = (
        predictions([of["seed0-6"]], run.corpus.tasks, others).tables[TFIDF] for others in ((), [of["seed0-all"]])
    )
    assert alone != beside  # IDF of the notes that the arms of that seed have read
    assert any(gate.name.startswith("All labels beat 6 per task") for gate in built.gates)


def test_only_what_is_missing_is_done(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    run, _ = compared
    lost = run.folder / "cells/seed1-all/evaluate/decselfmask/manifest.json"
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")}
    compare.compare(Run(run.settings).open())
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")}
    assert set(after) - set(before) == {lost}
    assert all(after[path] == before[path] for path in before)


def test_a_repeat_whose_model_is_gone_is_fitted_again_when_asked_for_something_new(
    compared: tuple[Run, dict[compare.Cell, Run]],
) -> None:
    run, cells = compared
    asked = run.settings.evaluation.model_copy(update={"conformal": Conformal(alpha=0.2)})
    first = {cell.name: pq.read_table(found.step("evaluate/sft@1").data) for cell, found in cells.items()}
    again = compare.compare(Run(run.settings.model_copy(update={"evaluation": asked})).open())
    for cell, found in again.items():
        assert found.is_done("calibrate/sft@1")
        assert pq.read_table(found.step("evaluate/sft@1").data).equals(first[cell.name])  # and it is the same model
        assert not (found.folder / "finetune/sft@1/model").exists()


def test_an_arm_is_in_the_table_only_with_all_its_seeds(
    tmp_path: Path, compared: tuple[Run, dict[compare.Cell, Run]]
) -> None:
    run, _ = compared
    copied = shutil.copytree(run.folder, tmp_path / run.folder.name)
    (copied / "cells/seed1-all/evaluate/decselfmask/manifest.json").unlink()
    partial = Run(run.settings.model_copy(update={"runs": str(tmp_path)})).open()
    built = results.build(partial, compare.opened(partial))
    assert [row.name for row in built.arms] == ["sft", TFIDF]
    assert "decselfmask" in built.remarks["arms left out (not finished for every seed and repeat)"]


def test_a_run_alone_needs_no_label_budgets(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    _, cells = compared
    alone = next(iter(cells.values()))
    assert alone.settings.comparison.budgets  # asked for, and not made here
    assert not any("arms left out" in remark for remark in results.build(alone).remarks)


@pytest.mark.slow
def test_probes_of_the_first_seed_stand_in_the_report(
    tmp_path: Path, compared: tuple[Run, dict[compare.Cell, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = compared
    shutil.copytree(run.folder, tmp_path / run.folder.name)
    copied = Run(run.settings.model_copy(update={"runs": str(tmp_path)})).open()
    assert results.build(copied, compare.opened(copied)).probing is None
    monkeypatch.setattr("raypipe.cli.steps.opened", lambda *_: nullcontext(copied))
    cli.probe(Path("unused"))
    assert (copied.folder / "cells/seed0-all/probe/report.html").exists()
    found = results.build(copied, compare.opened(copied)).probing
    assert found is not None
    assert set(found.students) == {"backbone", "train/decselfmask", "finetune/scorer", "finetune/decselfmask"}


def test_what_a_table_cannot_say_is_said_before(compared: tuple[Run, dict[compare.Cell, Run]]) -> None:
    run, _ = compared
    said = " ".join(compare._advice(run))
    for what in ("start: random", "least_relevant", "repeats: 2"):
        assert what in said
    arms = dict(run.settings.arms)
    arms["random_init"] = Arm(start="random")
    arms["least"] = Arm(masking={"strategy": "least_relevant", "match_ratio_to": "decselfmask"})
    full = run.settings.model_copy(update={"arms": arms, "repeats": 5})
    run = copy(run)
    run.settings = full
    assert not list(compare._advice(run))


def test_a_failing_unit_does_not_stop_the_others(
    tmp_path: Path, compared: tuple[Run, dict[compare.Cell, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cells = compared
    done = []

    def work(cell: Run) -> None:
        done.append(cell.settings.name)
        if cell.settings.name == "seed0-all":
            raise ValueError("the patient said so")

    failed = Failures()
    compare._each(run, work, [(cell,) for cell in cells.values()], True, failed)
    assert len(done) == len(cells)
    with pytest.raises(InputError) as failure:
        failed.tell("what to do")
    assert failure.value.exit_code == ExitCode.PARTIAL
    assert "seed0-all" in str(failure.value)
    assert "patient" not in str(failure.value)
    assert "ValueError at" in str(failure.value)


def test_a_seed_that_cannot_be_prepared_does_not_stop_the_others(
    tmp_path: Path, compared: tuple[Run, dict[compare.Cell, Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured for it, nor for its cells with fewer labels, which need its rows."""
    folder = Path(shutil.copytree(compared[0].folder, tmp_path / compared[0].folder.name, copy_function=shutil.copy2))
    for lost in (
        "seed0-all/mask",
        "seed0-all/evaluate/scorer",
        "seed0-12/evaluate/scorer",
        "seed1-all/evaluate/scorer",
    ):
        (folder / "cells" / lost / "manifest.json").unlink()
    measured = []
    monkeypatch.setattr(compare, "_learn", lambda cell, arm: measured.append(f"{cell.settings.name}/{arm}"))

    def prepare(cell: Run) -> None:
        raise ValueError(cell.settings.name)

    monkeypatch.setattr(driver, "prepare", prepare)
    with pytest.raises(InputError) as failure:
        compare.compare(Run(compared[0].settings.model_copy(update={"runs": str(tmp_path)})).open())
    of_seed, hint = failure.value.problems
    assert of_seed.where == "seed0-all"
    assert hint.what.startswith("1 of its parts failed; the same command")
    assert measured == ["seed1-all/sft"]


def _table(scores: list[float], labels: list[str]) -> pa.Table:
    found = [
        {"task_id": "t", "note_id": f"n{i}", "group_id": f"g{i}", "label": label, "scores": [score, 0.0],
         "predicted": "yes" if score > 0 else "no"}
        for i, (score, label) in enumerate(zip(scores, labels, strict=True))
    ]  # fmt: skip
    return rows.table(found, rows.PREDICTIONS)


def _scored(skill: float, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    labels = ["yes" if i % 2 else "no" for i in range(120)]
    return _table([skill * (1 if label == "yes" else -1) + rng.normal() for label in labels], labels)


@pytest.mark.parametrize(("skill", "passed"), [(1.5, True), (0.0, False)])
def test_gates_ask_for_an_interval_above_zero(skill: float, passed: bool) -> None:
    pooled, fewer = Pooled(), Pooled()
    for seed in range(3):
        pooled.add("sft", seed, *(_scored(skill, 10 * seed + i) for i in range(2)))
        pooled.add("random_init", seed, _scored(0.0, 100 + seed))
        pooled.add(TFIDF, seed, _scored(1.5, 200 + seed))
        fewer.add("sft", seed, _scored(0.2 * skill, 300 + seed))
    found = list(gates(pooled, (30, fewer), [TASK], "sft", "random_init"))
    assert [gate.passed for gate in found] == [passed, passed, passed, None]


def test_a_gate_without_its_arm_is_not_measurable() -> None:
    pooled = Pooled()
    pooled.add("sft", 0, _scored(1.0, 0))
    pooled.add(TFIDF, 0, _scored(1.0, 1))
    assert next(gates(pooled, None, [TASK], "sft", None)).passed is None


def test_seeds_are_resampled_above_their_runs() -> None:
    """Runs of a seed that agree add no certainty: the interval is as wide as that of one run per seed."""
    tables = [_scored(skill, seed) for seed, skill in enumerate((0.2, 0.6, 1.0, 1.4))]
    alone = uncertainty.compare_arms({"a": tables}, [TASK], n_bootstrap=4000)
    fourfold = [table for table in tables for _ in range(4)]
    seeds = {"a": [s for s in range(4) for _ in range(4)]}
    nested = uncertainty.compare_arms({"a": fourfold}, [TASK], n_bootstrap=4000, seeds=seeds)
    naive = uncertainty.compare_arms({"a": fourfold}, [TASK], n_bootstrap=4000)
    width = [c.arms["a"].high - c.arms["a"].low for c in (alone, nested, naive)]
    assert width[1] == pytest.approx(width[0], rel=0.1)
    assert width[2] < 0.85 * width[0]
    assert "few_seeds" in nested.arms["a"].caveats
    assert "few_seeds" not in naive.arms["a"].caveats
