"""Every row that goes in comes out once: a swap of ids shows although the counts agree."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.evaluation import heads
from raypipe.runs import driver
from raypipe.runs.audit import audit
from raypipe.runs.run import Run
from raypipe.stream import inline
from raypipe.stream.stages import probe
from raypipe.training import examples
from raypipe.tuning.plan import configure
from tests.small_run import settings


def _ids(*ids: str) -> pa.ChunkedArray:
    return pa.chunked_array([list(ids)], pa.string())


def test_the_same_ids_in_any_order_and_in_any_blocks(tmp_path: Path) -> None:
    audit(tmp_path, _ids("a", "b", "c"), pa.chunked_array([["c"], ["a", "b"]], pa.string()))
    audit(tmp_path, pa.chunked_array([], pa.string()), pa.chunked_array([], pa.string()))


@pytest.mark.parametrize(
    ("out", "what"),
    [
        (_ids("a", "b"), "1 lost"),
        (_ids("a", "b", "c", "a"), "1 doubled"),
        (_ids("a", "b", "b"), "1 lost, 1 doubled"),  # as many rows as went in
        (_ids("a", "b", "x"), "1 lost, 1 that never went in"),  # as many ids as went in
        (_ids(), "3 lost"),
    ],
)
def test_what_is_wrong_is_counted(tmp_path: Path, out: pa.ChunkedArray, what: str) -> None:
    with pytest.raises(InputError, match=f"of 3 notes: {what};") as error:
        audit(tmp_path, _ids("a", "b", "c"), out)
    assert error.value.exit_code == ExitCode.PARTIAL


ARMS = {
    "sft": {},
    "masked": {"masking": {"ratio": 0.2}},
    "pseudo": {"pseudo_labels": {"confidence": 0.5, "max_imbalance": None}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a scorer."""
    conformal = {"alpha": 0.1}
    run = Run(settings(tmp_path_factory.mktemp("runs"), arms=ARMS, evaluation__conformal=conformal)).open()
    driver.make(run, ["finetune/scorer"])
    return run


def _forget(run: Run, step: str) -> None:
    shutil.rmtree(run.step(step).path, ignore_errors=True)


@pytest.mark.parametrize(
    "step",
    [
        "pretrain/rows",
        "attribute",
        "mask",
        "answer",
        "train/rows",
        "pseudo",
        "evaluate/scorer",
        "calibrate/scorer",
        "states/backbone",
    ],
)
def test_a_step_that_loses_a_row_is_not_finished(run: Run, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(run, step)
    before = [todo.name for todo in driver.missing(run, [step])][:-1]
    driver.make(run, before)
    written = inline.Tables.write_parquet

    def but_one(self: inline.Tables, folder: str, **options: Any) -> None:
        """The last row is replaced by the first: as many as went in."""
        written(self, folder, **options)
        path = next(Path(folder).iterdir())
        table = rows.read(path)
        rows.write(pa.concat_tables([table.slice(0, len(table) - 1), table.slice(0, 1)]), path)

    with monkeypatch.context() as patch:
        patch.setattr(inline.Tables, "write_parquet", but_one)
        with pytest.raises(InputError, match=f"{step}: of .* 1 lost") as error:
            driver.make(run, [step])
    assert error.value.exit_code == ExitCode.PARTIAL
    assert not run.is_done(step)
    driver.make(run, [step])
    assert run.is_done(step)


def test_labelled_notes_that_are_no_rows_are_missed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(run, "finetune/rows")
    written = examples.write
    with monkeypatch.context() as patch:
        patch.setattr(examples, "write", lambda made, path: written(made[2:], path))
        with pytest.raises(InputError, match=r"finetune/rows: of 24 notes: 1 lost"):
            driver.make(run, ["finetune/rows"])
    assert not run.is_done("finetune/rows")
    driver.make(run, ["finetune/rows"])


def test_a_head_that_loses_a_whole_task_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"evaluation.mode": "head", "evaluation.conformal": None, "probe.c": (0.1,), "probe.folds": 2}
    run = Run(configure(run.settings, changes)).open()
    task, fit = run.corpus.tasks[0].id, heads.fit_probe

    def but_one_task(*args: Any) -> pa.Table:
        probed = fit(*args)
        return probed.filter(pc.not_equal(probed["task_id"], task))

    _forget(run, "evaluate/scorer")
    with monkeypatch.context() as patch:
        patch.setattr(probe, "fit_probe", but_one_task)
        with pytest.raises(InputError, match=r"evaluate/scorer: of .* labels: 12 lost"):
            driver.make(run, ["evaluate/scorer"])
