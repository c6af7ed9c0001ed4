"""The whole job on two Ray nodes that share the run's folder, one of them lost on the way, or the driver: the result is
that of a run in one process, without Ray.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from raypipe import rows
from raypipe.settings import configfile
from tests import ray_nodes
from tests.ray_nodes import Nodes
from tests.small_run import settings

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]
# two actors, so that each node has one; occlusion is slow enough for the loss to land in the middle
CHANGES = {"resources__ray": True, "resources__attribution_actors": 2, "resources__rows_per_block": 8}
CHANGES |= {"resources__cpus_per_worker": 1.0, "data__synthetic__n_unlabelled": 240, "attribution__method": "occlusion"}
CHANGES |= {"attribution__reduction": "auto"}
LOST_AT = 4  # blocks that are written


@dataclass(frozen=True)
class Jobs:
    """Runs in one folder, on one cluster."""

    nodes: Nodes
    folder: Path

    def start(self, name: str, **changes: Any) -> subprocess.Popen[str]:
        """Begin the whole job in a process of its own."""
        config = self.folder / f"{name}.yaml"
        config.write_text(configfile.dump(settings(self.folder, name=name, **CHANGES | changes)))
        command = [sys.executable, "-m", "raypipe.cli", "run", "--config", str(config)]
        environment = self.nodes.environment | {"RAY_ADDRESS": self.nodes.gcs}
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder
        )

    def finish(self, job: subprocess.Popen[str]) -> None:
        """Wait until a job has succeeded."""
        out, _ = job.communicate(timeout=600)
        assert job.returncode == 0, out[-3000:]

    def wait_for_blocks(self, name: str, job: subprocess.Popen[str]) -> None:
        """Until some masks are written, and others are not."""
        while len(list((self.folder / name / "mask/data").glob("*.parquet"))) < LOST_AT:
            assert job.poll() is None, job.communicate()[0][-3000:]
            time.sleep(0.05)

    def assert_in_the_middle(self, name: str) -> None:
        assert not (self.folder / name / "mask/manifest.json").exists(), "the loss must land in the middle"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """A head, and what the job makes without Ray: the run `alone`."""
    with ray_nodes.head(num_cpus=4) as nodes:
        all_jobs = Jobs(nodes, tmp_path_factory.mktemp("runs"))
        all_jobs.finish(all_jobs.start("alone", resources__ray=False))
        yield all_jobs


def _assert_as_alone(jobs: Jobs, name: str) -> None:
    alone, other = (rows.read(jobs.folder / run / "mask/data").sort_by("note_id") for run in ("alone", name))
    assert other["note_id"].equals(alone["note_id"])
    assert other["plans"].to_pylist() == alone["plans"].to_pylist()
    assert np.allclose(_numbers(other["relevance"]), _numbers(alone["relevance"]), atol=2e-3)
    for step in ("train/decselfmask", "finetune/decselfmask", "finetune/scorer"):
        one, two = (load_file(jobs.folder / run / step / "model/model.safetensors") for run in ("alone", name))
        assert max(float(np.abs(one[key] - two[key]).max()) for key in one) < 2e-5, step
    arms = [json.loads((jobs.folder / run / "report/metrics.json").read_text())["arms"] for run in ("alone", name)]
    assert [(arm["name"], pytest.approx(arm["auc"], abs=1e-6)) for arm in arms[0]] == [
        (arm["name"], arm["auc"]) for arm in arms[1]
    ]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([np.asarray(row or [], np.float32) for row in column.to_pylist()])


def _attributes(node: subprocess.Popen[bytes]) -> bool:
    """Does an actor of attribution run on this node?"""
    return any("Attribute" in " ".join(p.cmdline()) for p in psutil.Process(node.pid).children(recursive=True))


def test_a_node_is_lost_on_the_way(jobs: Jobs) -> None:
    second = jobs.nodes.add(num_cpus=2)
    job = jobs.start("lost_node")
    jobs.wait_for_blocks("lost_node", job)
    assert _attributes(second), "work is on both nodes"
    jobs.nodes.lose(second)
    jobs.assert_in_the_middle("lost_node")
    jobs.finish(job)
    _assert_as_alone(jobs, "lost_node")


def test_the_driver_dies_and_the_job_is_submitted_again(jobs: Jobs) -> None:
    jobs.nodes.add(num_cpus=2)
    job = jobs.start("lost_driver")
    jobs.wait_for_blocks("lost_driver", job)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    jobs.assert_in_the_middle("lost_driver")
    assert (jobs.folder / "lost_driver/lock.json").exists()
    jobs.finish(jobs.start("lost_driver"))
    _assert_as_alone(jobs, "lost_driver")
