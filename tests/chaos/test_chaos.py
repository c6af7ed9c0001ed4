"""Ten faults leave no trace; and what would be a trace is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos import twins
from tests.chaos.__main__ import draw
from tests.chaos.faults import FAULTS
from tests.chaos.jobs import JOBS


def test_after_ten_faults_everything_is_as_if_there_had_been_none() -> None:
    jobs = ["masking", "training", "evaluation"]
    program = [sys.executable, "-m", "tests.chaos", "--faults", "10", "--seed", "5", "--jobs", *jobs]
    ended = subprocess.run(program, text=True, capture_output=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "faults 10, lost 0, duplicated 0, differing 0, ill-ended 0;" in ended.stdout


def test_every_fault_meets_every_job() -> None:
    drawn = draw(1000, 0, [job.name for job in JOBS])
    assert {(one.job.name, one.fault.name) for one in drawn} == {(job.name, f.name) for job in JOBS for f in FAULTS}


TWO_AT_ONCE = """
import random, sys, time
from dataclasses import replace
from pathlib import Path
from raypipe.runs import lock
from tests.chaos.__main__ import Drawn, Stage, _two_at_once
from tests.chaos.faults import FAULTS, START
from tests.chaos.jobs import JOBS

stage = Stage(Path(sys.argv[1]))

def work(config):
    with lock.held(stage.runs / "small"):
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

job = replace(JOBS[0], work=work, stages=())
drawn = Drawn(job, FAULTS[-1], START)
print(*_two_at_once(stage, drawn, random.Random(0))[1], sep=", ")
lock._is_alive, lock._remove_dead = lambda *_: False, lambda path, _: path.unlink()
print(*_two_at_once(stage, drawn, random.Random(0))[1], sep=", ")
"""


def test_two_jobs_are_at_work_at_once_and_a_lock_that_refuses_nobody_is_seen(tmp_path: Path) -> None:
    program = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path)]
    ended = subprocess.run(program, text=True, capture_output=True, timeout=120)
    assert ended.stdout.splitlines() == ["", "two jobs at once end with [0, 0]"], ended.stderr


def _rows(runs: Path, shard: str, ids: list[str], error: str | None = None) -> None:
    pq.write_table(pa.table({"note_id": ids, "error": [error] * len(ids)}), runs / "mask/data" / f"{shard}.parquet")


def _lose(runs: Path) -> None:
    _rows(runs, "0", ["a"])


def _double(runs: Path) -> None:
    _rows(runs, "2", ["c"])


def _change(runs: Path) -> None:
    _rows(runs, "1", ["c"], "E_OOM")


def _leave_half(runs: Path) -> None:
    (runs / "mask/manifest.json.77.new").write_text("{}")


def _lose_step(runs: Path) -> None:
    (runs / "train/metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 3.0, "seconds": 2}))


def _lose_model(runs: Path) -> None:
    (runs / "train/model.safetensors").unlink()


def _later(runs: Path) -> None:
    (runs / "mask/manifest.json").write_text(json.dumps({"seconds": 9, "notes": 3}))


@pytest.mark.parametrize(
    ("happened", "lost", "duplicated", "differing"),
    [
        (_lose, 1, 0, 0),
        (_double, 0, 1, 0),
        (_change, 0, 0, 1),
        (_leave_half, 0, 1, 0),
        (_lose_step, 1, 0, 0),
        (_lose_model, 1, 0, 0),
        (_later, 0, 0, 0),
    ],
)
def test_what_differs_from_the_twin_is_counted(
    tmp_path: Path, happened: Callable[[Path], None], lost: int, duplicated: int, differing: int
) -> None:
    for name in ("twin", "found"):
        runs = tmp_path / name
        (runs / "mask/data").mkdir(parents=True)
        _rows(runs, "0", ["a", "b"])
        _rows(runs, "1", ["c"])
        (runs / "mask/manifest.json").write_text(json.dumps({"seconds": 1, "notes": 3}))
        (runs / "train").mkdir()
        lines = [json.dumps({"step": n, "loss": 3.0, "seconds": n}) for n in (1, 2)]
        (runs / "train/metrics.jsonl").write_text("\n".join(lines))
        (runs / "train/model.safetensors").write_bytes(b"weights")
    happened(tmp_path / "found")
    verdict = twins.compare(tmp_path / "twin", tmp_path / "found")
    assert (verdict.lost, verdict.duplicated, verdict.differing) == (lost, duplicated, differing)
