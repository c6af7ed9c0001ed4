"""Output lands in the run's folder and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.findings.page.report import Report
from raypipe.findings.page.write import write_report
from raypipe.runs.folder import StepFolder, refuse_links
from raypipe.runs.run import Run
from tests.small_run import settings


@pytest.mark.parametrize("planted", ["mask", "config.yaml", "corpus", "finetune/scorer", "mask/data", "nowhere", ""])
def test_a_link_in_a_runs_folder_is_not_followed(tmp_path: Path, planted: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if planted == "nowhere":
        elsewhere.rmdir()
    link = tmp_path / "runs/small" / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"{link}: is a symbolic link") as error:
        Run(settings(tmp_path / "runs")).open()
    assert len(error.value.problems) == 1
    assert not elsewhere.exists() or not any(elsewhere.iterdir())


def test_the_folder_of_runs_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    run = Run(settings(tmp_path / "runs")).open()
    assert run.is_done("corpus")
    assert (tmp_path / "disk/small/config.yaml").exists()
    refuse_links(run.folder)


def test_a_report_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.html").symlink_to(victim)
    with pytest.raises(InputError, match="is a symbolic link"):
        write_report(Report("title"), tmp_path / "report")
    assert victim.read_text() == "mine"


def test_a_folder_whose_settings_were_lost_is_not_finished_by_claiming_it(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {}).open()
    step.data.mkdir()
    step.finish()
    (step.path / "settings.json").unlink()
    (step.data / "rows.parquet").write_text("of other settings, perhaps")
    (step.path / "written").mkdir()
    (step.path / "outcome.json").write_text("{}")
    assert not StepFolder(step.path, {}).open().done
    assert [path.name for path in step.path.iterdir()] == ["settings.json"]


def test_what_a_killed_command_had_begun_to_record_is_no_output(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {}).open()
    for name in ("settings", "manifest", "outcome"):
        (step.path / f"{name}.json.77.new").write_text("{")
    (step.path / "rows.txt").write_text("")
    step.open().finish()
    assert list(step.manifest["files"]) == ["rows.txt"]
    assert {path.name for path in step.path.iterdir()} == {"settings.json", "manifest.json", "rows.txt"}
