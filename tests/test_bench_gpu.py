"""The script for a GPU runs to its end without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_section_gives_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bench_gpu

    report = tmp_path / "report.json"
    sizes = ["--device", "cpu", "--sizes", "tiny", "--rows", "8", "--trunk", "40", "--rounds", "1"]
    bench_gpu.main([*sizes, "--json", str(report)])
    lines = json.loads(report.read_text())["rows"]
    assert {line["section"] for line in lines} == {"attribution", "training", "trees"}
    assert all(line["ratio"] > 0 for line in lines)
    errors = [line["error"] for line in lines if line["section"] == "attribution" and line["error"] is not None]
    assert errors
    assert max(errors) < 1e-4, "the engine's relevance is captum's"


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bench_gpu

    monkeypatch.setattr(bench_gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="error: no GPU here"):
        bench_gpu.main([])
