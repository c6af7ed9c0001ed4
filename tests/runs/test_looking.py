"""Looking at a run changes nothing on disk and refuses nothing, whatever state the run is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe import cli, rows
from raypipe.errors import Code, InputError
from raypipe.findings import results
from raypipe.findings.show import show_note
from raypipe.runs import compare, driver
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.run import Run
from raypipe.runs.steps import STEPS
from raypipe.settings import configfile
from tests.small_run import settings

ARMS = {"sft": {}, "decselfmask": {"masking": {"ratio": 0.2}}}


def _tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder with its time, mode and bytes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A comparison that stopped after the scorer and the masks of its only seed."""
    run = Run(settings(tmp_path_factory.mktemp("runs"), arms=ARMS, repeats=2, comparison__seeds=1)).open()
    driver.make(run, ["pretrain"])
    cell = Run(compare.cell_settings(compare.Cell(0, None), run, {}), run).open()
    driver.make(cell, ["mask"])
    return run


def test_asking_for_every_step_writes_nothing(half_done: Run) -> None:
    before = _tree(half_done.folder)
    for changes in ({}, {"seed": 5}, {"arms": ARMS | {"span": {"masking": {"strategy": "span"}}}}):
        other = Run(settings(Path(half_done.settings.runs), **{"arms": ARMS, "repeats": 2, **changes}))
        for cell in [other, *compare.opened(other).values()]:
            for step in STEPS:
                name = step.name.format(arm="decselfmask", student="decselfmask@1")
                folder = cell.step(name)
                assert isinstance(folder.state, State)
                assert folder.done == cell.is_done(name)
            driver.missing(cell, [*driver.shared_steps(cell), *driver.steps_of(cell, "decselfmask")])
            driver.is_prepared(cell)
            assert not driver.is_measured(cell, "sft")
    assert _tree(half_done.folder) == before


def test_a_report_writes_its_page_and_nothing_else(half_done: Run, tmp_path: Path) -> None:
    config = tmp_path / "compare.yaml"
    config.write_text(configfile.dump(half_done.settings))
    before = _tree(half_done.folder)
    cli.report(config)  # no arm is measured yet: the baselines are
    after = _tree(half_done.folder)
    assert {path for path in after if path not in before} == {"report", "report/report.html", "report/metrics.json"}
    assert {path: after[path] for path in before} == before
    masked = next(iter(compare.opened(half_done).values())).step("mask").output
    show_note([masked], "unlabelled-00001")
    table = rows.read(masked / "data")
    held_out = next(row["note_id"] for row in table.to_pylist() if row["error"] == Code.HELD_OUT)
    with pytest.raises(InputError, match=f"nothing is masked in note {held_out}: it is a dev or test note"):
        show_note([masked], held_out)
    with pytest.raises(InputError, match=r"no note nosuch in .*; ids are those of data.columns.note_id"):
        show_note([masked], "nosuch")
    assert _tree(half_done.folder) == after


def test_a_report_says_what_was_made_with_other_settings(half_done: Run) -> None:
    cell = next(iter(compare.opened(half_done).values()))
    arms = {"decselfmask": {"masking": {"ratio": 0.4}}, "sft": {}}
    changed = Run(configfile.build(cell.settings.model_dump() | {"arms": arms}, "test"), half_done)
    assert "mask" in results.build(changed).remarks["steps not read (made with other settings)"]


def test_a_report_names_such_steps_of_an_arm_with_relevance_of_its_own(tmp_path: Path) -> None:
    def run(ratio: float) -> Run:
        arms = {"own": {"attribution": {"method": "attnlrp"}, "masking": {"ratio": ratio}}, "sft": {}}
        return Run(settings(tmp_path, arms=arms))

    StepFolder(run(0.4).of("own").folder / "mask", run(0.4).of("own").step("mask").settings).open().data.mkdir()
    assert results._not_read([run(0.4)]) == {}
    (remark,) = results._not_read([run(0.2)]).values()
    assert remark == "own/mask"


def test_a_folder_that_was_only_claimed_is_absent(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {"ratio": 0.1}).open()
    assert step.state is State.ABSENT
    step.data.mkdir()
    assert step.state is State.UNFINISHED
    assert StepFolder(step.path, {"ratio": 0.2}).state is State.OTHER
