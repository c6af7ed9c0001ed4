"""What a run leaves is opened in the tools that docs/artefacts.md names, and each of them reads what pyarrow reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

import raypipe
from raypipe import rows
from raypipe.findings import attributions
from raypipe.guard import process
from raypipe.settings import configfile
from tests.small_run import settings

Records = list[dict[str, Any]]

# Each opens a list of Parquet files as one table. `datasets` copies what it reads to a folder.
READERS: dict[str, Callable[[list[str], Path], Records]] = {
    "pandas": lambda files, _: pd.concat(map(pd.read_parquet, files)).to_dict("records"),
    "polars": lambda files, _: polars.read_parquet(files).to_dicts(),
    "duckdb": lambda files, _: duckdb.read_parquet(files).to_arrow_table().to_pylist(),
    "datasets": lambda files, copy: datasets.Dataset.from_parquet(files, cache_dir=str(copy)).to_list(),
}
# What is opened, and columns that tell its rows apart.
ARTEFACTS = {
    "the tidy table": ["note_id", "task_id", "layer", "word"],
    "the tidy table with words": ["note_id", "task_id", "layer", "word"],
    "relevance": ["note_id"],
    "masked rows": ["note_id"],
    "scores": ["task_id", "note_id"],
}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The Parquet files of each artefact of a finished run."""
    folder = tmp_path_factory.mktemp("left")
    config, run = folder / "small.yaml", folder / "runs/small"
    config.write_text(configfile.dump(settings(folder / "runs", attribution__keep="all")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "protect", lambda: None)  # this process is that of all tests
        raypipe.pretrain(config, say=False)
        raypipe.finetune(config, say=False, arms=["sft"])
        (relevance,) = raypipe.attribute(config, say=False)
        (masked,) = raypipe.mask(config, say=False)
        (scores,) = raypipe.evaluate(config, say=False, arms=["sft"])
    attributions.export(run, folder / "tidy.parquet")
    attributions.export(run, folder / "words.parquet", with_text=True)
    steps = {"relevance": relevance, "masked rows": masked, "scores": scores}
    return {
        "the tidy table": [str(folder / "tidy.parquet")],
        "the tidy table with words": [str(folder / "words.parquet")],
        **{name: sorted(map(str, step.folder.glob("data/*.parquet"))) for name, step in steps.items()},
    }


def _plain(value: Any) -> Any:
    """A cell in Python's own types; pandas has NaN where a number is missing."""
    if isinstance(value, dict):
        return {name: _plain(cell) for name, cell in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(cell) for cell in value]
    if value is None or value is pd.NaT or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _sorted(records: Records, key: list[str]) -> Records:
    return sorted(_plain(records), key=lambda record: [record[name] for name in key])


@pytest.mark.parametrize("artefact", ARTEFACTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_reads_what_pyarrow_reads(
    reader: str, artefact: str, left: dict[str, list[str]], tmp_path: Path
) -> None:
    files, key = left[artefact], ARTEFACTS[artefact]
    expected = _sorted([record for file in files for record in pq.read_table(file).to_pylist()], key)
    assert _sorted(READERS[reader](files, tmp_path), key) == expected
    assert len({tuple(record[name] for name in key) for record in expected}) == len(expected) > 50


def test_what_is_read_is_not_empty(left: dict[str, list[str]]) -> None:
    """Nested columns with numbers in them, rows with and without: what a reader may stumble over is there."""
    masked = rows.records(pq.read_table(left["masked rows"][0]))
    assert any(plan["start"] for row in masked for plan in row["plans"] or ())
    assert {row["relevance"] is None for row in masked} == {False, True}
    assert {len(row["layers"]) for row in masked if row["layers"] is not None} == {3}
    assert all(row["scores"] is not None for row in rows.records(pq.read_table(left["scores"][0])))
