"""Config, tasks and lexicons travel with a job, and nothing that may hold a note or a weight does."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from raypipe.errors import InputError
from raypipe.settings import configfile
from raypipe.settings.config import Config
from raypipe.settings.sections import values
from raypipe.stream import working_dir

ABSOLUTE = {"runs": "/shared/runs", "data": {"notes": "/shared/notes.parquet", "labels": "s3://bucket/labels.csv"}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("my.yaml", "terms.txt", "sub/table.csv", "notes.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "sub/tasks.yaml").write_text("from_table: table.csv\ntasks: []\n")
    (tmp_path / "model").mkdir()
    return tmp_path


def _settings(**changes: Any) -> Config:
    return configfile.build(
        configfile.changed(ABSOLUTE, {k.replace("__", "."): v for k, v in changes.items()}), "my.yaml"
    )


def _travels(settings: Config, space: Path | None = None) -> set[str]:
    return {str(place) for place in working_dir.files(Path("my.yaml"), settings, space)}


def _refusals(settings: Config) -> dict[str, str]:
    with pytest.raises(InputError) as refused:
        working_dir.files(Path("my.yaml"), settings)
    return {problem.where: problem.what for problem in refused.value.problems}


def test_the_small_files_that_the_config_names_travel(here: Path) -> None:
    (here / "space.py").write_text("PARAM_SPACE = {}")
    arms = {"mslm": {"masking": {"strategy": "mslm", "mslm": {"lexicon": "terms.txt"}}}}
    settings = _settings(data__tasks="sub/tasks.yaml", arms=arms)
    assert _travels(settings, Path("space.py")) == {
        "my.yaml", "sub/tasks.yaml", "sub/table.csv", "terms.txt", "space.py"
    }  # fmt: skip


def test_absolute_paths_are_the_clusters(here: Path) -> None:
    assert _travels(_settings(data__tasks="/shared/tasks.yaml", model__path="/shared/model")) == {"my.yaml"}


def test_a_config_from_elsewhere_lies_at_the_top(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "their.yaml"
    other.write_text("x")
    assert working_dir.files(other, _settings()) == {Path("their.yaml"): other}
    assert working_dir.place_of(here / "sub/mine.yaml") == Path("sub/mine.yaml")


def test_a_config_of_the_folder_above_lies_at_the_top_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert working_dir.place_of(Path("../my.yaml")) == Path("my.yaml")
    assert working_dir.place_of(Path("./x/../my.yaml")) == Path("my.yaml")


def test_the_folder_of_a_run_is_no_config(here: Path) -> None:
    with pytest.raises(InputError, match="--config: sub is no file"):
        working_dir.files(Path("sub"), _settings())


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of every setting that is a path (`Location`, `LocalPath`); an arm stands for all."""
    for name, field in model.model_fields.items():
        kinds = [field, *typing.get_args(field.annotation)]
        metadata = [m for kind in kinds for m in (getattr(kind, "__metadata__", None) or getattr(kind, "metadata", ()))]
        if any(getattr(m, "func", None) in (values.location, values._folder) for m in metadata):
            yield prefix + name
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _paths(kind, f"{prefix}{name}.")


def test_every_path_of_a_config_travels_or_is_refused(here: Path) -> None:
    """A new setting that holds a path must be one or the other."""
    paths = set(_paths(Config))
    assert {"runs", "data.notes", "data.tasks", "arms.masking.mslm.lexicon"} <= paths
    travelling = {"data.tasks", "arms.masking.mslm.lexicon"}
    for key in sorted(paths - travelling):
        path = "model" if key == "model.path" else "notes.csv"
        assert "does not travel" in _refusals(_settings(**{key.replace(".", "__"): path}))[key]


def test_all_problems_are_listed_at_once(here: Path) -> None:
    refusals = _refusals(
        _settings(runs="runs", data__notes="notes.csv", data__tasks="nowhere.yaml", model__path="model")
    )
    assert set(refusals) == {"runs", "data.notes", "data.tasks", "model.path"}
    assert "outside" in _refusals(_settings(data__tasks="../tasks.yaml"))["data.tasks"]


def test_hub_ids_and_keywords_are_no_paths(here: Path) -> None:
    settings = _settings(model__path="org/model", model__revision="0" * 40, statistics__general_counts="pretraining")
    assert _travels(settings) == {"my.yaml"}


def test_too_much_is_refused_with_the_largest_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_dir, "MAX_BYTES", 1_000)
    (here / "sub/table.csv").write_text("x" * 2_000)
    what = _refusals(_settings(data__tasks="sub/tasks.yaml"))[""]
    assert "the largest: sub/table.csv (0.0 MB)" in what


def test_files_are_copied_to_their_places(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("built")
    working_dir.build(working_dir.files(Path("my.yaml"), _settings(data__tasks="sub/tasks.yaml")), folder)
    assert (folder / "sub/tasks.yaml").read_text() == (here / "sub/tasks.yaml").read_text()
    assert not (folder / "notes.csv").exists()
