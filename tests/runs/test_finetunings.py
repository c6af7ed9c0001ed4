"""Fine-tuning as an axis of a comparison: the same reconstructed students, fine-tuned otherwise."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raypipe.errors import InputError
from raypipe.evaluation import metrics
from raypipe.findings import finetunings as shown
from raypipe.findings import results
from raypipe.findings.page.html import html
from raypipe.findings.page.text import text_table
from raypipe.runs import compare, driver, finetunings
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config, Lora, Training
from raypipe.settings.sections.evaluation import Conformal
from raypipe.settings.sections.many_runs import ArmComparison
from raypipe.training import loop
from tests.small_run import settings

FINETUNINGS = {
    "short": {"max_steps": 1, "batch_rows": 8, "learning_rate": 1e-3},
    "tuned": {"max_steps": None, "batch_rows": 8, "choose": {"epochs": (1.0, 2.0), "learning_rate": (1e-3, 1e-2)}},
}
ARMS: dict[str, Any] = {
    "sft": {},
    "decselfmask": {"masking": {"ratio": 0.2}},
    "kv": {"masking": {"ratio": 0.2}, "attribution": {"method": "kv_direct"}},
}
CHANGES = {"comparison__seeds": 2, "comparison__budgets": (12,), "comparison__finetunings": FINETUNINGS, "arms": ARMS}
Cells = dict[compare.Cell, Run]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Cells]:
    run = Run(settings(tmp_path_factory.mktemp("runs"), **CHANGES)).open()
    return run, compare.compare(run)


def test_a_cell_is_a_seed_a_budget_and_a_fine_tuning(compared: tuple[Run, Cells]) -> None:
    _, cells = compared
    of_seed = [f"{b}{f}" for f in ("", "-short", "-tuned") for b in ("all", 12)]
    assert [cell.name for cell in cells] == [f"seed{s}-{cell}" for s in (0, 1) for cell in (*of_seed, 6)]


def test_reconstruction_is_shared_and_fine_tuning_is_not(compared: tuple[Run, Cells]) -> None:
    _, cells = compared
    for cell, run in cells.items():
        if cell.finetuning:
            own = cells[cell.reconstructed]
            for step in ("finetune/rows", "finetune/scorer", "mask", "train/rows", "train/decselfmask"):
                assert run.step(step).path == own.folder / step, step
            assert run.is_done("finetune/decselfmask")
            assert run.step("finetune/decselfmask").path.is_relative_to(run.folder)
            assert not list(run.folder.rglob("finetune/*/model")), "predictions are what counts"
            assert (own.folder / "train/decselfmask/model").exists()
            for step in ("mask", "train/rows", "train/kv"):
                assert run.of("kv").step(step).path == own.of("kv").folder / step, step
            assert run.of("kv").step("finetune/kv").path.is_relative_to(run.folder)
            assert (own.folder / "finetune/scorer/model").exists()


def test_a_budget_takes_as_many_steps_as_all_labels(compared: tuple[Run, Cells]) -> None:
    """24 notes in batches of 8 are 3 steps an epoch."""
    _, cells = compared
    n_steps = {cell: run.needed("finetune/sft").manifest["steps"] for cell, run in cells.items() if cell.finetuning}
    assert {n for cell, n in n_steps.items() if cell.finetuning == "short"} == {1}
    assert {n for cell, n in n_steps.items() if cell.finetuning == "tuned"} <= {3, 6}


def test_dev_labels_choose_the_best_for_labels_alone(compared: tuple[Run, Cells]) -> None:
    _, cells = compared
    for cell, run in cells.items():
        if cell.finetuning == "tuned":
            tried = sorted((run.folder / "choose").iterdir())
            assert len(tried) == 4
            scores = {
                path.name: metrics.evaluate(pq.read_table(path / "evaluate/sft/data"), run.corpus.tasks).macro_f1
                for path in tried
            }
            training = run.settings.finetune
            assert scores[f"epochs{training.epochs:g}-rate{training.learning_rate:g}"] == max(scores.values())
            dev = set(pq.read_table(tried[0] / "evaluate/sft/data")["note_id"].to_pylist())
            assert all(note_id.startswith("dev") for note_id in dev)


def test_only_what_is_missing_is_done(compared: tuple[Run, Cells]) -> None:
    run, cells = compared
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")}
    again = compare.compare(Run(run.settings).open())
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")} == before
    assert again.keys() == cells.keys()
    assert compare.opened(Run(run.settings).open()).keys() == cells.keys()


def test_the_report_shows_gain_over_steps(compared: tuple[Run, Cells]) -> None:
    run, cells = compared
    built = results.build(run, cells)
    assert {(row.finetuning, row.labels, row.arm) for row in built.gains} == {
        (finetuning, labels, arm)
        for finetuning in ("finetune", "short", "tuned")
        for labels in (None, 12)
        for arm in ARMS
    }
    of_all = [row for row in built.gains if row.labels is None]
    assert [row.n_steps for row in of_all] == sorted(row.n_steps for row in of_all)
    for row in built.gains:
        if row.arm == "decselfmask":
            alone = next(
                r for r in built.gains if (r.finetuning, r.labels, r.arm) == (row.finetuning, row.labels, "sft")
            )
            assert row.gain is not None
            assert row.gain.value == pytest.approx(row.macro_f1.value - alone.macro_f1.value)
            assert row.gain.low <= row.gain.value <= row.gain.high
    assert "Gain by fine-tuning" in html(built)
    assert "gain in AUC" in text_table(built)
    of_one = results.build(run, {cell: one for cell, one in cells.items() if cell.finetuning is None})
    assert not of_one.gains
    assert {row.name: row.macro_f1 for row in of_one.arms} == {row.name: row.macro_f1 for row in built.arms}


def test_what_a_choice_needs_is_told_at_once(compared: tuple[Run, Cells]) -> None:
    run, _ = compared
    for changes, said in (
        ({"evaluation": run.settings.evaluation.model_copy(update={"split": "dev"})}, "must be another split"),
        ({"arms": {"decselfmask": run.settings.arms["decselfmask"]}}, "needs an arm of labels alone"),
        ({"comparison": ArmComparison(finetunings={"finetune": {}})}, "choose another"),
        ({"comparison": ArmComparison(pairs=(("sft", "sft"),))}, "names one arm twice"),
    ):
        with pytest.raises(InputError, match=said):
            compare.compare(Run(run.settings.model_copy(update=changes), run))


def test_a_chosen_student_whose_model_is_gone_is_fitted_again(compared: tuple[Run, Cells], tmp_path: Path) -> None:
    """Its model was deleted where it was chosen: what is then asked of it cannot be answered by that training."""
    shutil.copytree(compared[0].folder, tmp_path / "small")
    cells = compare.opened(Run(compared[0].settings.model_copy(update={"runs": str(tmp_path)})))
    (run,) = (run for cell, run in cells.items() if cell == compare.Cell(1, None, finetuning="tuned"))
    driver.renew_students(run, "sft")
    assert run.is_done("finetune/sft"), "nothing is asked of it"
    evaluation = run.settings.evaluation.model_copy(update={"conformal": Conformal()})
    run.settings = run.settings.model_copy(update={"evaluation": evaluation})
    driver.renew_students(run, "sft")
    assert not run.is_done("finetune/sft")
    driver.evaluate(run, "sft")
    assert run.is_done("calibrate/sft")
    fitted = run.step("finetune/sft")
    compare.compare(Run(compared[0].settings.model_copy(update={"runs": str(tmp_path)})))
    assert run.step("finetune/sft").path == fitted.path == run.folder / "finetune/sft", "no candidate is fitted again"


def test_a_candidate_that_diverges_has_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"tuned": {**FINETUNINGS["tuned"], "choose": {"learning_rate": (2e-3, 0.5)}}}
    run = Run(settings(tmp_path, comparison__seeds=1, comparison__finetunings=rates), say=lambda line: None).open()
    fit, diverging = loop.fit, {0.5}

    def fitted(model: Any, pad_id: int, examples: Any, training: Training, *more: Any, **options: Any) -> Any:
        if training.learning_rate in diverging:
            next(model.parameters()).data.fill_(math.nan)
        return fit(model, pad_id, examples, training, *more, **options)

    monkeypatch.setattr(loop, "fit", fitted)
    cells = compare.compare(run)
    tuned = cells[compare.Cell(0, None, finetuning="tuned")]
    assert tuned.settings.finetune.learning_rate == 2e-3
    assert tuned.is_done("evaluate/decselfmask")
    diverging.add(2e-3)
    elsewhere = run.settings.model_copy(update={"name": "all_diverge"})
    with pytest.raises(InputError, match="every candidate diverged: try lower learning rates"):
        compare.compare(Run(elsewhere, say=lambda line: None).open())


def test_candidates_that_come_to_the_same_are_tried_once(compared: tuple[Run, Cells]) -> None:
    cell, training = compared[1][compare.Cell(0, None)], compared[0].settings.finetune
    other = training.model_copy(update={"learning_rate": 0.5})
    assert len(finetunings.candidates(cell, [training, other, training], "tuned", "sft")) == 2


def test_a_pair_that_is_compared_anyway_counts_once(compared: tuple[Run, Cells]) -> None:
    run, cells = compared
    pairs = run.settings.comparison.model_copy(update={"pairs": (("decselfmask", "sft"),)})
    again = Run(run.settings.model_copy(update={"comparison": pairs}))
    assert str(results.build(again, cells).arms) == str(results.build(run, cells).arms)


def test_a_fine_tuning_has_the_keys_of_finetune_that_it_does_not_give(tmp_path: Path) -> None:
    written = tmp_path / "config.yaml"
    written.write_text(
        "finetune: {learning_rate: 0.5, epochs: 3, lora: {rank: 8}}\n"
        "comparison:\n  finetunings:\n    one: {epochs: 1}\n    full: {lora: null, choose: {epochs: [4, 2]}}\n"
    )
    loaded = configfile.load(written).comparison.finetunings
    assert [(t.learning_rate, t.epochs, t.lora.rank) for t in loaded["one"].candidates if t.lora] == [(0.5, 1, 8)]
    assert [(t.learning_rate, t.epochs, t.lora) for t in loaded["full"].candidates] == [(0.5, 2, None), (0.5, 4, None)]
    dumped = configfile.dump(configfile.load(written))
    written.write_text(dumped)
    assert configfile.dump(configfile.load(written)) == dumped
    assert Config().comparison.finetunings == {}


def test_one_key_of_lora_leaves_the_others_as_they_are() -> None:
    other = {"lora": {"rank": 4}}
    config = configfile.build(
        {
            "finetune": {"lora": {"rank": 16, "alpha": 32, "dropout": 0.0}},
            "train": {"lora": {"rank": 8, "alpha": 8, "first_block": 2}},
            "scorer": {"training": other},
            "comparison": {"finetunings": {"small": other}},
            "arms": {"a": {"masking": {}, "train": other}},
        },
        "test",
    )
    of_labels = Lora(rank=4, alpha=32, dropout=0.0)
    assert config.scorer.training is not None
    assert config.scorer.training.lora == config.comparison.finetunings["small"].lora == of_labels
    assert config.training_of("a").lora == Lora(rank=4, alpha=8, first_block=2)


@pytest.mark.parametrize("betas", [[0.9, 1.0], [-0.1, 0.9]])
def test_betas_are_those_that_the_optimiser_takes(betas: list[float]) -> None:
    with pytest.raises(InputError, match=r"finetune\.betas"):
        configfile.build({"finetune": {"betas": betas}}, "test")


def test_a_fine_tuning_that_some_seed_lacks_is_left_out() -> None:
    cells: Any = {"finetune": {None: [0, 1, 2], 12: [0, 1, 2]}, "tuned": {None: [0, 2], 12: [0, 1, 2]}}
    assert shown.unfinished(cells) == [("tuned", None)]
    assert shown.unfinished({}) == []


def test_an_arm_that_is_not_finished_after_another_fine_tuning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Config())
    monkeypatch.setattr(shown.driver, "is_measured", lambda _, arm: arm == "sft")
    cells = {"finetune": {None: [run, run]}, "tuned": {None: [run, run], 12: [run]}}
    assert shown.left_out(cells) == ["decselfmask after tuned", "tuned of 12 labels"]
    assert shown.left_out({}) == []
