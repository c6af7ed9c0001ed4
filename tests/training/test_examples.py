"""Rows mapped from a file are the rows that were written, in an order that their keys alone decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypipe.training import examples
from raypipe.training.examples import Examples

KEYS = [f"{name}\t{part}" for name in ("z", "é", "a-10", "a-9", "Ω", "a", "😀") for part in range(12)]


def _row(key: str, arm: str, rng: np.random.Generator) -> dict[str, object]:
    n = int(rng.integers(1, 30))
    weight, branch = rng.random(n, dtype=np.float32).tolist(), sorted(rng.integers(0, 3, n).tolist())
    ids = rng.integers(0, 2**31 - 1, n).tolist()
    return {"arm": arm, "key": key, "draw": n % 2, "input_ids": ids, "loss_weight": weight, "branch": branch}


@pytest.fixture(params=["shuffled once", "shuffled otherwise"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same rows of two arms, and receipts, in files that differ."""
    made = {arm: np.random.default_rng(number) for number, arm in enumerate("ab")}
    rows = [_row(key, arm, rng) for arm, rng in made.items() for key in KEYS]
    rows += [examples.receipt(key) for key in KEYS]
    order = np.random.default_rng(len(request.param)).permutation(len(rows))
    for number, part in enumerate(np.array_split(order, 3)):
        examples.write([rows[i] for i in part], tmp_path / "rows" / f"{number}.parquet")
    return tmp_path / "rows"


def _same(one: Examples, other: Examples) -> bool:
    assert one.draw.tolist() == other.draw.tolist()
    assert one.length.tolist() == other.length.tolist()
    pairs = ((one.row(i), other.row(i)) for i in range(len(other)))
    return all(np.array_equal(a, b) and a.dtype == b.dtype for pair in pairs for a, b in zip(*pair, strict=True))


def test_mapped_rows_are_sorted_by_key_whatever_the_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "BATCH", 7)  # so that a file has many
    examples.store(folder, "b", tmp_path / "b.arrow")
    rng = np.random.default_rng(1)
    by_key = {key: _row(key, "b", rng) for key in KEYS}
    wanted = [by_key[key] for key in sorted(KEYS)]
    mapped = examples.mapped(tmp_path / "b.arrow")
    assert len(mapped._batches) > 10
    assert _same(mapped, examples.from_rows(wanted))
    assert _same(mapped, examples.read(folder, "b"))
    weight = [sum(np.float64(np.float32(w)) for w in row["loss_weight"]) for row in wanted]  # type: ignore[attr-defined]
    assert mapped.total_weight_of(np.array([3, 0])) == pytest.approx(weight[3] + weight[0], rel=1e-12)
    assert mapped.total_weight_of(np.array([3, 0])) == sum(mapped.row(i)[1].sum(dtype=np.float64) for i in (3, 0))
    assert mapped.targets_of(np.array([3, 0])) == sum(np.count_nonzero(mapped.row(i)[1]) for i in (3, 0))


def test_tokens_stay_in_the_file(tmp_path: Path) -> None:
    n, length = 40, 20_000
    row = {"input_ids": [7] * length, "loss_weight": [1.0] * length, "branch": [0] * length}
    examples.write([{"arm": "a", "key": str(i), "draw": 0, **row} for i in range(n)], tmp_path / "rows/0.parquet")
    examples.store(tmp_path / "rows", "a", tmp_path / "a.arrow")
    before = pa.total_allocated_bytes()
    mapped = examples.mapped(tmp_path / "a.arrow")
    assert sum(mapped.row(i)[0].sum() for i in range(n)) == 7 * n * length
    assert pa.total_allocated_bytes() - before < 0.01 * 10 * n * length


def test_a_file_may_be_deleted_while_it_is_in_use(folder: Path, tmp_path: Path) -> None:
    examples.store(folder, "a", tmp_path / "a.arrow")
    mapped = examples.mapped(tmp_path / "a.arrow")
    (tmp_path / "a.arrow").unlink()
    assert _same(mapped, examples.read(folder, "a"))


def test_no_half_of_a_file_is_taken_for_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples.store(folder, "a", tmp_path / "a.arrow")
    whole = (tmp_path / "a.arrow").read_bytes()
    shard = folder / "1.parquet"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(OSError, match=r"[Cc]hecksum|CRC"):
        examples.store(folder, "a", tmp_path / "a.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == whole


def test_an_arm_without_rows(folder: Path, tmp_path: Path) -> None:
    examples.store(folder, "c", tmp_path / "c.arrow")
    assert len(examples.mapped(tmp_path / "c.arrow")) == 0
