"""Every row that goes in comes out once: a swap of ids shows although the counts agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.runs import driver
from raypipe.runs.audit import audit
from raypipe.runs.run import Run
from raypipe.stream import inline
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


@pytest.mark.parametrize(
    "step", ["attribute", "mask", "answer", "train/rows", "pseudo", "evaluate/scorer", "calibrate/scorer"]
)
def test_a_step_that_loses_a_row_is_not_finished(run: Run, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
