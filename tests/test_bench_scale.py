"""The benchmark of a million notes at a tiny size: its job is the real one but for the stage that it says is faked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from raypipe import rows
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.stream import pipeline

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
N_NOTES = 800


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench_scale

    return bench_scale


def test_its_job_in_this_process(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "calls").mkdir()
    bench.write_corpus(tmp_path, N_NOTES)
    texts = rows.read(tmp_path / "notes")["text"]
    words = pc.count_substring(texts, " ").to_numpy()
    assert 0.7 * bench.WORDS < words.mean() < 1.4 * bench.WORDS
    assert np.median(words) < words.mean()  # the long tail of a log-normal
    assert len(texts.unique()) == N_NOTES

    monkeypatch.setattr(bench.StandIn, "calls", str(tmp_path / "calls"))
    monkeypatch.setattr(pipeline, "Attribute", bench.StandIn)
    of_run = bench.settings(tmp_path, 1, 256)
    resources = of_run.resources.model_copy(update={"ray": False})
    run = Run(of_run.model_copy(update={"resources": resources}), say=lambda line: None).open()
    driver.make(run, ["train/rows"])
    masked = rows.read(run.step("mask").data)
    assert len(masked) == N_NOTES
    errors = masked["error"].value_counts().to_pylist()
    assert {count["values"] for count in errors} == {None, "HELD_OUT"}
    held_out = 3 * bench.LABELLED["test"]  # each is one of a patient's three
    assert sum(count["counts"] for count in errors if count["values"]) >= held_out
    assert run.step("train/rows").manifest["rows"] >= sum(c["counts"] for c in errors if not c["values"])
    ((*_, n_batches), *more) = bench._called(tmp_path)
    assert n_batches + sum(n for *_, n in more) >= (N_NOTES - held_out) / bench.NOTES_A_BATCH - 2


def test_the_slowest_and_the_fastest_tenth(bench: Any) -> None:
    written = [(0.0, 5), (1.0, 5), *((float(2 + i), 5 + 100 * i) for i in range(1, 11))]
    assert bench.steady(written) == pytest.approx((100.0, 100.0))
    stalled = [*written, (22.0, written[-1][1])]
    assert bench.steady(stalled)[0] == 0.0
    assert np.isnan(bench.steady(written[:3])).all()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_killed_resumed_and_measured() -> None:
    """More notes than the object store holds: with two CPUs beside its actors, the resumed stream stood still."""
    options = ("--notes=16000", "--store=80", "--block=256", "--batches=24", "--ms=5")
    command = [sys.executable, str(BENCHMARKS / "bench_scale.py"), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout
    for step in ("corpus", "mask", "train/rows"):
        (line,) = re.findall(rf"\| {step} \| .* \|", said)
        assert all(float(cell.replace(",", "")) >= 0 for cell in line.split("|")[2:-1])
    assert "mask, resumed" in said
    assert re.search(r"overhead -?\d+\.\d %", said)
    assert len(re.findall(r"mapped, reader \d", said)) == 2
