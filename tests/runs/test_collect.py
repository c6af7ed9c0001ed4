"""The step `corpus`: the split that is made here is recorded, and every reader of the run gets the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config
from tests.exports import wide_export
from tests.small_run import SETTINGS


def _config(folder: Path, **data: Any) -> Config:
    (folder / "tasks.yaml").write_text('tasks: [{id: fever, question: Febbre, options: ["1", "0"]}]')
    export = str(wide_export(folder / "export.csv"))
    files = {
        "notes": export,
        "labels": export,
        "tasks": str(folder / "tasks.yaml"),
        "columns": {"note_id": "Nr. referto", "text": "Referto PS", "group_id": "Codice paziente"},
        "label_columns": {
            "note_id": "Nr. referto", "task_id": None, "split": None, "tasks": {"fever": "Febbre > 38?"}
        },
    }  # fmt: skip
    return configfile.build({**SETTINGS, "runs": str(folder / "runs"), "data": {**files, **data}}, "test")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(_config(tmp_path, max_labelled=10)).open()


def test_the_split_of_every_labelled_note_is_written_with_how_it_was_made(run: Run) -> None:
    split = pq.read_table(run.corpus.split_path)
    assert split.num_rows == 60, "before max_labelled"
    made = run.step("corpus").manifest["split"]
    sizes = {name: pc.sum(pc.equal(split["split"], name)).as_py() for name in ("train", "dev", "test")}
    assert made == {"dev": 0.15, "test": 0.25, "seed": 0, "notes": sizes}
    assert run.corpus.labels["split"].to_pylist().count("train") == 10


def test_labels_in_use_and_the_guard_have_the_split_that_was_written(run: Run) -> None:
    written = dict(zip(*pq.read_table(run.corpus.split_path).to_pydict().values(), strict=True))
    for table in (run.corpus.labels, run.corpus.all_labels):
        assert all(written[row["note_id"]] == row["split"] for row in table.to_pylist())
    guard = run.corpus.guard
    assert guard is not None
    assert guard.note_ids == {note_id for note_id, split in written.items() if split != "train"}


def test_another_seed_of_the_split_is_another_corpus(tmp_path: Path, run: Run) -> None:
    assert run.is_done("corpus")
    again, other = Run(_config(tmp_path, max_labelled=10)), Run(_config(tmp_path, max_labelled=10, split={"seed": 1}))
    again.__dict__["inputs"] = other.__dict__["inputs"] = run.inputs  # the export was written again, with a new time
    assert again.is_done("corpus")
    assert not other.is_done("corpus")


def test_a_split_of_the_users_own_is_not_written_again(tmp_path: Path) -> None:
    config = configfile.build({**SETTINGS, "runs": str(tmp_path)}, "test")
    run = Run(config).open()
    assert not run.corpus.split_path.exists()
    assert "split" not in run.step("corpus").manifest


def test_generated_notes_have_their_own_columns(tmp_path: Path) -> None:
    data = {**SETTINGS["data"], "label_columns": {"task_id": None, "split": None}}
    run = Run(configfile.build({**SETTINGS, "runs": str(tmp_path), "data": data}, "test")).open()
    assert run.corpus.labels.num_rows
    assert not run.corpus.split_path.exists()
