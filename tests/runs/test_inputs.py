"""Input files count as the ones of then if their content is the same, whatever their time, and else as others."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.records import write_json
from raypipe.runs import inputs, integrity
from raypipe.runs.folder import State
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config
from tests.exports import wide_export
from tests.small_run import SETTINGS

INPUTS = ("export.csv", "encoder/model.safetensors", "terms.txt")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A run on notes in a file, which also reads an encoder and a list of terms."""
    (tmp_path / "tasks.yaml").write_text('tasks: [{id: fever, question: Febbre, options: ["1", "0"]}]')
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/model.safetensors").write_bytes(b"weights")
    (tmp_path / "terms.txt").write_text("febbre\n")
    export = str(wide_export(tmp_path / "export.csv"))
    labels = {"note_id": "Nr. referto", "task_id": None, "split": None, "tasks": {"fever": "Febbre > 38?"}}
    data = {"notes": export, "labels": export, "tasks": str(tmp_path / "tasks.yaml"), "label_columns": labels}
    data["columns"] = {"note_id": "Nr. referto", "text": "Referto PS", "group_id": "Codice paziente"}
    listed = {"strategy": "mslm", "mslm": {"terms": "lexicon", "lexicon": str(tmp_path / "terms.txt")}}
    more = {"statistics": {"encoder": str(tmp_path / "encoder")}, "arms": {"listed": {"masking": listed}}}
    return configfile.build({**SETTINGS, "runs": str(tmp_path / "runs"), "data": data, **more}, "test")


@pytest.fixture
def run(config: Config) -> Run:
    """Its corpus is made, and its masks have been begun."""
    run = Run(config).open()
    run.step("mask").open().data.mkdir()
    return run


def _states(config: Config, base: Run | None = None) -> list[State]:
    return [Run(config, base).step(name).state for name in ("corpus", "mask")]


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def _copy_again(path: Path) -> None:
    shutil.copyfile(path, path.with_name("aside"))
    path.with_name("aside").replace(path)
    os.utime(path, ns=(0, 1_000_000_000))


@pytest.mark.parametrize("name", INPUTS)
def test_a_file_that_was_copied_again_is_the_same_and_looking_writes_nothing(
    config: Config, run: Run, tmp_path: Path, name: str
) -> None:
    _copy_again(tmp_path / name)
    before = _files(run.folder)
    assert _states(config) == [State.FINISHED, State.UNFINISHED], "the mask goes on where it stopped"
    assert _files(run.folder) == before
    assert Run(config).open().made == set()
    other = config.model_copy(update={"name": "other"})
    assert Run(other, base=run).step("corpus").path == run.folder / "corpus", "what a base has finished is read there"


@pytest.mark.parametrize("name", INPUTS)
def test_other_content_of_the_same_size_is_refused_and_named(
    config: Config, run: Run, tmp_path: Path, name: str
) -> None:
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-2] + b"?" + content[-1:])
    os.utime(tmp_path / name, ns=(0, 0))
    step = Run(config).step("mask")
    assert step.state is State.OTHER
    with pytest.raises(InputError, match=rf"made with other settings \(.*: {tmp_path / name} has changed\); change"):
        step.open()


def test_files_that_came_and_went_are_named(config: Config, run: Run, tmp_path: Path) -> None:
    (tmp_path / "encoder/model.safetensors").rename(tmp_path / "encoder/weights.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors is gone, .*weights.safetensors is new\)"):
        Run(config).step("mask").open()


def test_a_corpus_of_an_earlier_version_keeps_no_digests(config: Config, run: Run, tmp_path: Path) -> None:
    corpus = run.step("corpus")
    write_json(corpus.path / "manifest.json", {k: v for k, v in corpus.manifest.items() if k != "inputs"})
    assert _states(config) == [State.FINISHED, State.UNFINISHED]
    _copy_again(tmp_path / "export.csv")
    assert _states(config) == [State.OTHER, State.OTHER]


def test_every_file_is_read_once_by_a_command(
    config: Config, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in INPUTS:
        _copy_again(tmp_path / name)
    integrity.remembered.cache_clear()
    digested: Counter[str] = Counter()
    sha256 = integrity.sha256
    monkeypatch.setattr(integrity, "sha256", lambda path: (digested.update([path.name]), sha256(path))[1])
    again = Run(config)
    data = config.data.model_copy(update={"label_seed": 1})
    cell = Run(config.model_copy(update={"name": "cell", "data": data}), base=again).open()
    assert [again.is_done("corpus"), cell.is_done("corpus")] == [True, True]
    assert {Path(name).name: digested[Path(name).name] for name in INPUTS} == {Path(name).name: 1 for name in INPUTS}
    kept: Any = cell.step("corpus").manifest["inputs"]
    assert kept == again.step("corpus").manifest["inputs"], "a cell tells of the files what its base tells"


def test_what_lies_in_a_store_is_told_by_its_time(config: Config) -> None:
    in_store = "bucket/notes.parquet"
    digests = inputs.digests({"notes": [[in_store, 3, 5]], "labels": inputs.listing(config)["labels"]}, config, {})
    assert {Path(path).name for path in digests} == {"export.csv", "terms.txt"}
