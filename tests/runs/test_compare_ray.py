"""A comparison on Ray survives SIGKILL: the same command again does what is missing and nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypipe.settings import configfile
from tests.small_run import settings

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_killed_comparison_goes_on(tmp_path: Path) -> None:
    small = settings(
        tmp_path,
        name="compared",
        repeats=2,
        comparison__seeds=1,
        comparison__seeds_in_tasks=True,
        resources__ray=True,
        resources__concurrent_arms=2,
    )
    config = tmp_path / "compare.yaml"
    config.write_text(configfile.dump(small))
    arguments = [sys.executable, "-m", "raypipe.cli", "compare", "--config", str(config)]
    folder = tmp_path / "compared"

    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(folder.glob("cells/*-all/evaluate/*/manifest.json")):
        assert first.poll() is None, "the comparison ended before it could be killed"
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}

    second = subprocess.run(arguments, text=True, capture_output=True, timeout=200)
    assert second.returncode == 0, second.stdout + second.stderr
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}
    assert before.items() <= after.items()  # nothing that was finished was made again
    assert len(after) > len(before)
    metrics = json.loads((folder / "report/metrics.json").read_text())
    assert {arm["name"]: arm["macro_f1"]["n_runs"] for arm in metrics["arms"]} == {
        "sft": 2,
        "decselfmask": 2,
        "tfidf_logistic": 1,
    }
