"""The benchmark of many actors, without Ray: its stand-in, and what it makes of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe import rows

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench_actors

    return bench_actors


def test_the_stand_in_sleeps_by_the_note_and_gives_rows_of_the_real_size(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(bench.time, "sleep", slept.append)
    made = bench.Sleeper(4.0, 1, str(tmp_path))(pa.table({"note_id": ["a", "b", "c"]}))
    assert sum(slept) == pytest.approx(4.0 * 3 / bench.NOTES)
    assert made["note_id"].to_pylist() == ["a", "b", "c"]
    for name, n in {"word_start": bench.WORDS, "relevance": bench.TASKS * bench.WORDS}.items():
        assert {len(row) for row in made[name].to_pylist()} == {n}
        assert made.schema.field(name).type == rows.ATTRIBUTED.field(name).type


def test_the_driver_feeds_as_many_cards_as_it_has_time_for(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here a tenth of a core whatever happens, and 20 ms a block."""
    measured = [(10, 50.0), (100, 50.0), (300, 60.0)]  # blocks, seconds
    found = [
        {"blocks": n, "wall_s": s, "driver_ms": 1000 * (0.1 * s + 0.02 * n) / n, "blocks_a_second": n / s}
        for n, s in measured
    ]
    (tmp_path / "weak.json").write_text(json.dumps(found))
    bench.model([tmp_path / "weak.json"])
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first == "driver: 10% of a core and 20.0 ms a block, so 45 blocks/s at most; seen here: 5.0"
    of_8 = next(line for line in lines if line.split()[0] == "8")
    assert of_8.replace("|", " ").split() == ["8", "360", "40", "26%", "42%", "74%", "138%"]
