"""Finished means whole: whoever reads a step's output is told which file is damaged, and only that is made again."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raypipe import cli
from raypipe.errors import InputError
from raypipe.findings import results
from raypipe.runs import driver, integrity
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.run import Run
from raypipe.settings import configfile
from tests.small_run import settings

Damage = Callable[[Path], object]
ASK = {"json_of", "verdict"}  # functions that ask the disk about a step


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with a finished small run in it."""
    run = Run(settings(tmp_path_factory.mktemp("runs"))).open()
    driver.run_all(run)
    return run.folder.parent


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy of it; the files keep their times."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def _shard(runs: Path) -> Path:
    (shard,) = (runs / "small/mask/data").glob("*.parquet")
    return shard


def _flip(path: Path, keep_time: bool = False) -> None:
    """One bit of the file; in a Parquet file, of its texts."""
    times, content = path.stat(), bytearray(path.read_bytes())
    place = len(content) // 2
    if path.suffix == ".parquet":
        group = pq.read_metadata(path).row_group(0)
        text = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "text")
        place = text.data_page_offset + text.total_compressed_size // 2
    content[place] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + (0 if keep_time else 1)))


def _double(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy.parquet"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _again(runs: Path) -> Run:
    """The students of the finished run are learned again."""
    run = Run(settings(runs)).open()
    for folder in ("train/rows", "train/decselfmask"):
        shutil.rmtree(run.folder / folder)
    driver.run_all(run)
    return run


def test_a_manifest_lists_what_the_step_left(made: Path) -> None:
    for manifest in made.rglob("manifest.json"):
        files = json.loads(manifest.read_text())["files"]
        assert files, manifest
        for name, entry in files.items():
            path = manifest.parent / name
            assert entry["size"] == path.stat().st_size
            assert entry["modified"] == path.stat().st_mtime_ns
            assert entry.get("rows") == (pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None)
    corpus, rows, pretrained = (
        StepFolder(made / "small" / name, {}).manifest["files"] for name in ("corpus", "pretrain/rows", "pretrain")
    )
    assert {"labels.parquet", "labelled.parquet", "tasks.yaml"} <= set(corpus)
    assert "../tokenizer/tokenizer.json" in rows
    assert "model/model.safetensors" in pretrained
    assert not any(name.startswith(("rows/", "tokenizer/")) for name in pretrained), "of another step"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "is missing"),
        (_double, "is not of this step"),
        (_cut, "is damaged"),
        (_flip, "is damaged"),
    ],
)
def test_nothing_is_made_from_a_damaged_step(runs: Path, damage: Damage, what: str) -> None:
    damage(_shard(runs))
    with pytest.raises(InputError, match=f"small/mask/data/.*parquet: {what}.*`raypipe repair .*small/mask`") as error:
        _again(runs)
    assert len(error.value.problems) == 1
    assert not (runs / "small/train/rows").exists(), "refused before anything is begun"


def test_nothing_is_reported_from_a_damaged_step(runs: Path) -> None:
    _cut(next((runs / "small/evaluate/scorer/data").iterdir()))
    with pytest.raises(InputError, match=r"evaluate/scorer/data/.*is damaged"):
        results.build(Run(settings(runs)))


def test_a_model_is_an_output_like_any_other(runs: Path) -> None:
    _cut(runs / "small/finetune/scorer/model/model.safetensors")
    shutil.rmtree(runs / "small/evaluate/scorer")
    with pytest.raises(InputError, match=r"finetune/scorer/model/model.safetensors: is damaged"):
        driver.run_all(Run(settings(runs)).open())


def test_a_copied_folder_is_whole(runs: Path) -> None:
    for path in runs.rglob("*"):
        os.utime(path, (1, 1))
    before = {path: path.read_bytes() for path in runs.rglob("manifest.json")}
    run = _again(runs)
    assert [path for path, content in before.items() if path.read_bytes() != content] == [
        path for path in before if path.parent in (run.folder / "train/rows", run.folder / "train/decselfmask")
    ]


def test_a_flipped_bit_shows_when_it_is_read_and_when_digests_are_asked_for(runs: Path) -> None:
    _flip(_shard(runs), keep_time=True)
    integrity.demand_whole([runs / "small/mask"])
    with pytest.raises(InputError, match=r"mask/data/.*its content has changed"):
        integrity.demand_whole(integrity.finished(runs), by_digest=True)
    with pytest.raises(InputError, match=r"mask/data/.*its content has changed"):
        _again(runs)


@pytest.mark.parametrize("command", ["run", "report", "tune"])
def test_verify_compares_digests_first(runs: Path, tmp_path: Path, command: str) -> None:
    _flip(runs / "small/finetune/scorer/model/model.safetensors", keep_time=True)
    (tmp_path / "c.yaml").write_text(configfile.dump(settings(runs)))
    (tmp_path / "s.py").write_text("PARAM_SPACE = {'arms.decselfmask.masking.ratio': 0.3}")
    space = ["--space", str(tmp_path / "s.py")] if command == "tune" else []
    outcome = CliRunner().invoke(cli.app, [command, "--config", str(tmp_path / "c.yaml"), "--verify", *space])
    assert isinstance(outcome.exception, InputError)
    assert "finetune/scorer/model/model.safetensors: is damaged" in str(outcome.exception)


def test_repair_makes_the_damaged_step_again_and_no_other(runs: Path) -> None:
    before = pq.read_table(_shard(runs))
    times = {path: path.stat().st_mtime_ns for path in runs.rglob("manifest.json")}
    _cut(_shard(runs))
    folder = runs / "small/mask"
    assert CliRunner().invoke(cli.app, ["repair", str(folder)]).exit_code == 0
    driver.run_all(Run(settings(runs)).open())
    assert pq.read_table(_shard(runs)).equals(before)
    changed = {path.parent for path, when in times.items() if path.stat().st_mtime_ns != when}
    assert changed == {folder}
    assert "nothing is damaged" in integrity.repair(folder)[0]


def test_what_is_not_of_a_step_does_not_cost_it(runs: Path) -> None:
    folder = runs / "small/finetune/scorer"
    (folder / "model/.DS_Store").write_text("")
    integrity.demand_whole([folder])
    (folder / "model/copy.json").write_text("")
    with pytest.raises(InputError, match=r"copy\.json: is not of this step"):
        integrity.demand_whole([folder])
    assert "the step is whole" in integrity.repair(folder)[-1]
    integrity.demand_whole([folder], by_digest=True)
    assert not (folder / "model/copy.json").exists()


def test_repair_spares_the_steps_in_a_steps_folder(runs: Path) -> None:
    folder = runs / "small/pretrain"
    _cut(folder / "model/model.safetensors")
    integrity.repair(folder)
    assert {path.name for path in folder.iterdir()} == {"rows", "tokenizer"}
    integrity.demand_whole(integrity.finished(folder))


def test_repair_deletes_nothing_behind_a_link(runs: Path, tmp_path: Path) -> None:
    (runs / "small/mask/data").rename(tmp_path / "elsewhere")
    (runs / "small/mask/data").symlink_to(tmp_path / "elsewhere")
    (shard,) = (tmp_path / "elsewhere").iterdir()
    _cut(shard)
    ended = CliRunner().invoke(cli.app, ["repair", str(runs / "small/mask")])
    assert isinstance(ended.exception, InputError)
    assert "small/mask/data: is a symbolic link" in str(ended.exception)
    assert shard.exists()


@pytest.mark.parametrize("has_ids", [True, False])  # as with Ray, and without
def test_a_repair_that_was_interrupted_is_completed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ids: bool
) -> None:
    """Wherever it was: what is damaged does not stay without a record that says so."""
    unlink, n_deleted, is_over = Path.unlink, 0, False
    while not is_over:
        folder = tmp_path / str(n_deleted)
        shutil.copytree(made / "small/mask", folder)
        if has_ids:
            (folder / integrity.WRITTEN).mkdir()
        (shard,) = (folder / "data").glob("*.parquet")
        _cut(shard)
        left = iter(range(n_deleted))

        def interrupted(path: Path, missing_ok: bool = False, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", interrupted)
            try:
                integrity.repair(folder)
                is_over = True
            except KeyboardInterrupt:
                n_deleted += 1
        if (folder / "settings.json").exists():
            integrity.repair(folder)
        assert not shard.exists()
        assert not (folder / "manifest.json").exists()
    assert n_deleted >= 2


@pytest.mark.parametrize("name", ["settings.json", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b'{"files": []}'])
def test_a_broken_record_is_one_line(runs: Path, name: str, content: bytes) -> None:
    if (name, content) == ("settings.json", b'{"files": []}'):
        return  # other settings
    (runs / "small/mask" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"mask/{name}: cannot be read; `raypipe repair") as error:
        _again(runs)
    assert len(error.value.problems) == 1
    integrity.repair(runs / "small/mask")
    assert StepFolder(runs / "small/mask", {}).state is State.ABSENT


@pytest.mark.parametrize("call", ["read_text", "stat"])
def test_a_disk_that_fails_is_no_damage(runs: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Or the advice, `raypipe repair`, would delete what is whole."""
    folder, real = runs / "small/mask", getattr(Path, call)

    def failing(path: Path, *args: object, **kwargs: object) -> object:
        if path.is_relative_to(folder) and path.suffix in (".json", ".parquet") and inspect.stack()[1].function in ASK:
            raise OSError(errno.ESTALE, "stale", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, call, failing)
    for ask in (lambda: integrity.demand_whole([folder]), lambda: integrity.repair(folder)):
        with pytest.raises(OSError, match="stale"):
            ask()
    monkeypatch.undo()
    integrity.demand_whole([folder], by_digest=True)


def test_what_was_dropped_on_purpose_is_not_missing(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {}).open()
    for part in ("model", "adapter"):
        (step.path / part).mkdir()
        (step.path / part / "weights").write_text(part)
    step.finish()
    ended = (step.path / "manifest.json").stat().st_mtime_ns
    integrity.drop(step.path, "model", "data")
    integrity.demand_whole([step.path], by_digest=True)
    assert list(step.manifest["files"]) == ["adapter/weights"]
    assert (step.path / "manifest.json").stat().st_mtime_ns == ended
    shutil.rmtree(step.path / "adapter")
    with pytest.raises(InputError, match="adapter/weights: is missing"):
        assert step.output


def test_of_many_damaged_files_some_are_named(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {}).open()
    step.data.mkdir()
    for n in range(9):
        (step.data / f"{n}.txt").write_text("")
    step.finish()
    shutil.rmtree(step.path / "data")
    with pytest.raises(InputError, match=r"data/4.txt: is missing \(and 4 more files\)") as error:
        integrity.demand_whole([step.path])
    assert len(error.value.problems) == 5


def test_a_manifest_of_an_earlier_version_is_believed(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", {}).open()
    step.data.mkdir()
    (step.path / "manifest.json").write_text("{}")
    integrity.demand_whole([step.path], by_digest=True)
    assert step.data == step.path / "data"


def _forget_files(runs: Path) -> None:
    """As the manifests of earlier versions are."""
    for manifest in runs.rglob("manifest.json"):
        facts = json.loads(manifest.read_text())
        facts.pop("files")
        manifest.write_text(json.dumps(facts))


@pytest.mark.parametrize("file", ["corpus/labels.parquet", "evaluate/scorer/data", "mask/data", "train/rows/data"])
def test_rows_of_an_earlier_version_that_cannot_be_read_are_named(runs: Path, tmp_path: Path, file: str) -> None:
    _forget_files(runs)
    place = runs / "small" / file
    path = place if place.is_file() else next(place.iterdir())
    path.write_bytes(b"PAR1 and no table PAR1" * 9)
    for student in ("train", "finetune", "evaluate"):
        shutil.rmtree(runs / "small" / student / "decselfmask")
    (tmp_path / "c.yaml").write_text(configfile.dump(settings(runs)))
    for options in ([], ["--verify"]):
        outcome = CliRunner().invoke(cli.app, ["run", "--config", str(tmp_path / "c.yaml"), *options])
        assert isinstance(outcome.exception, InputError)
        first, *more = outcome.exception.problems
        assert first.where.removeprefix("decselfmask: ") == str(path)
        assert "cannot be read; `raypipe repair" in first.what
        assert all("1 of 2 arms failed" in problem.what for problem in more)
