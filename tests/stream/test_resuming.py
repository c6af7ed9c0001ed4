"""A resumed step makes the rows that are missing, and no others."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from raypipe import rows
from raypipe.settings.config import Data, Resources
from raypipe.stream import resuming
from raypipe.stream.cluster import WRITTEN, Cluster, forget_lost_rows, join
from raypipe.stream.source import read_notes

N_NOTES, N_SHARDS = 60, 6


def _as_ray_writes(step: Path) -> dict[str, Path]:
    """A folder of rows and the record of their ids, three shards a, b and c."""
    for part in ("data", WRITTEN):
        (step / part).mkdir()
    for name in "abc":
        ids = pa.table({"note_id": [f"{name}1", f"{name}2"]})
        pq.write_table(ids.append_column("error", pa.nulls(2, pa.string())), step / "data" / f"{name}_000001-0.parquet")
        pq.write_table(ids, step / WRITTEN / f"{name}_000001.parquet")
    return {path.name[0]: path for path in (step / "data").iterdir()}


def _left(step: Path) -> tuple[set[str], set[str]]:
    shards, records = ({path.name[0] for path in (step / part).iterdir()} for part in ("data", WRITTEN))
    return shards, records


def test_what_agrees_stays(tmp_path: Path) -> None:
    shards = _as_ray_writes(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shards.values()}
    forget_lost_rows(tmp_path / "data", tmp_path / WRITTEN)
    assert {path: path.stat().st_mtime_ns for path in shards.values()} == before
    assert _left(tmp_path) == (set("abc"), set("abc"))


def test_rows_that_were_lost_doubled_or_damaged_are_forgotten(tmp_path: Path) -> None:
    shards = _as_ray_writes(tmp_path)
    shards["a"].unlink()
    shards["b"].write_bytes(shards["b"].read_bytes()[:-20])
    shutil.copy(shards["c"], tmp_path / "data/z.parquet")
    pending = tmp_path / WRITTEN / "p_000001.pending.parquet"
    shutil.copy(tmp_path / WRITTEN / "c_000001.parquet", pending)  # Ray deletes what belongs to it
    forget_lost_rows(tmp_path / "data", tmp_path / WRITTEN)
    assert _left(tmp_path) == ({"c"}, {"c", "p"})


def test_a_shard_that_holds_other_ids_than_recorded_is_forgotten(tmp_path: Path) -> None:
    shards = _as_ray_writes(tmp_path)
    shutil.copy(shards["b"], shards["a"])
    forget_lost_rows(tmp_path / "data", tmp_path / WRITTEN)
    assert _left(tmp_path) == (set("bc"), set("bc"))


def test_rows_on_a_disk_that_fails_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = _as_ray_writes(tmp_path)

    def failing(path: Path, columns: list[str]) -> pa.Table:
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(rows, "read", failing)
    with pytest.raises(OSError, match="failed"):
        forget_lost_rows(tmp_path / "data", tmp_path / WRITTEN)
    assert all(path.exists() for path in shards.values())


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    forget_lost_rows(tmp_path / "data", tmp_path / WRITTEN)
    assert not any(tmp_path.iterdir())


def test_written_notes_are_told_by_the_hash_of_their_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hashes = np.sort(resuming._hashes(pa.chunked_array([["a", "é"], ["10"]])))
    assert hashes.dtype == np.uint64
    monkeypatch.setattr(ray, "get", lambda reference: reference)
    unwritten = resuming.Unwritten(resuming.skipping(tmp_path), hashes)
    left = unwritten.filter_rows_for_block(pa.table({"note_id": ["1", "é", "e", "10", "a", "b"]}))
    assert left["note_id"].to_pylist() == ["1", "e", "b"]
    assert len(unwritten.filter_rows_for_block(left.slice(0, 0))) == 0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    joined = join(Resources())
    assert isinstance(joined, Cluster)
    yield joined
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_only_lost_rows_are_made_again(cluster: Cluster, tmp_path: Path) -> None:
    ids = [f"{n:03d}" for n in range(N_NOTES)]
    pq.write_table(pa.table({"note_id": ids, "text": ["testo"] * N_NOTES}), tmp_path / "notes.parquet")
    data, out = Data(notes=str(tmp_path / "notes.parquet")), tmp_path / "step" / "data"

    def write() -> list[str]:
        with cluster.resumable(out):
            read_notes(data, N_NOTES // N_SHARDS).write_parquet(str(out), **rows.PARQUET)
        return sorted(rows.read(out)["note_id"].to_pylist())

    assert write() == ids
    lost, damaged, doubled, *whole = sorted(out.iterdir())
    assert len(whole) == N_SHARDS - 3
    before = {path: path.stat().st_mtime_ns for path in whole}
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-20])
    shutil.copy(doubled, out / "copy.parquet")
    assert write() == ids
    assert {path: path.stat().st_mtime_ns for path in whole} == before
    assert write() == ids, "nothing is written twice"
