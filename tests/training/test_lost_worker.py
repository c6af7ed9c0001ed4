"""Ray Train goes on after a lost worker, with the same result: SIGKILL of a worker, and loss of a whole node."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from raypipe.errors import ExitCode, InputError
from raypipe.guard import stalls
from raypipe.guard.quiet import without_text
from raypipe.settings import config
from raypipe.stream.cluster import QUIET
from raypipe.training import examples, trainer
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
STEPS = 60
# one row a pass, so that a step takes long enough for the kill to land in the middle
TRAINING = config.Training(
    learning_rate=1e-4, batch_rows=8, epochs=3, max_steps=STEPS, micro_batch_tokens=1, checkpoint_every=5
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows, and what an undisturbed worker makes of them."""
    path = tmp_path_factory.mktemp("lost_worker")
    tiny_model("llama").save_pretrained(path / "start")
    tiny_tokenizer().save_pretrained(path / "start")
    rng = np.random.default_rng(0)
    rows = [
        {"arm": "a", "key": f"{i:04d}", "draw": 0, "input_ids": rng.integers(3, 300, n).tolist(),
         "loss_weight": [0.0, *[1.0] * (n - 1)], "branch": [0] * n}
        for i, n in enumerate(rng.integers(10, 60, 200).tolist())
    ]  # fmt: skip
    examples.write(rows, path / "rows/rows.parquet")
    trainer.run([_spec(path, "straight")], torch.device("cpu"))
    return path


def _spec(folder: Path, name: str) -> trainer.TrainingSpec:
    start = config.Model(path=str(folder / "start"), device="cpu")
    return trainer.TrainingSpec(str(folder / name), str(folder / "rows"), "a", TRAINING, start, start)


@pytest.fixture(scope="module")
def lose_node() -> Iterator[Callable[[], None]]:
    """Two nodes of one CPU each, so one worker on each; the second can be lost (by the last test here)."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in QUIET.items():
            patch.setenv(key, value)
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield lambda: cluster.remove_node(second, allow_graceful=False)
        ray.shutdown()
        cluster.shutdown()


def _workers() -> list[psutil.Process]:
    """The training workers that descend from this process."""
    processes = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "TrainWorker" in " ".join(process.cmdline()):
                processes.append(process)
        except psutil.NoSuchProcess:
            continue
    return processes


def _step_of(spec: trainer.TrainingSpec) -> int:
    """Finished steps in the checkpoint."""
    try:
        return int(json.loads((Path(spec.folder) / "checkpoint/state.json").read_text())["step"])
    except FileNotFoundError:
        return 0


def _fit(
    spec: trainer.TrainingSpec, resources: config.Resources, lose: Callable[[], None]
) -> tuple[list[int], list[int]]:
    """Train, and lose something after the first checkpoint. Returns its step, and the ids of all workers there were."""
    lost_at: list[int] = []
    pids: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            pids.update(process.pid for process in _workers())
            if not lost_at and _step_of(spec):
                lost_at.append(_step_of(spec))
                lose()
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        trainer.fit([spec], resources, {"CPU": 1.0})
    finally:
        done.set()
        watcher.join()
    return lost_at, sorted(pids)


def _assert_as_straight(folder: Path, spec: trainer.TrainingSpec) -> None:
    models = folder / "straight/model", Path(spec.folder) / "model", folder / "start"
    straight, resumed, start = (load_file(path / "model.safetensors") for path in models)
    assert max(float((straight[name] - resumed[name]).abs().max()) for name in straight) < 2e-5
    assert max(float((straight[name] - start[name]).abs().max()) for name in straight) > 1e-3
    steps = [json.loads(line)["step"] for line in (Path(spec.folder) / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


def test_killed_worker(folder: Path, lose_node: object) -> None:
    spec = _spec(folder, "killed")
    lost_at, pids = _fit(spec, config.Resources(training_workers=2), lambda: os.kill(_workers()[0].pid, signal.SIGKILL))
    assert 0 < lost_at[0] < STEPS, "the kill must land in the middle"
    assert len(pids) == 4, "two workers before, two others after"
    _assert_as_straight(folder, spec)


def test_stalled_worker(folder: Path, lose_node: object) -> None:
    """Ray begins it again, and the second attempt fails with what the first has noted."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    spec, notes, resources = _spec(folder, "stalled"), folder / stalls.NOTES, config.Resources(no_progress_timeout_s=5)

    def wait(*_: object) -> dict[str, float]:
        threading.Event().wait()
        return {}

    with pytest.raises(WorkerGroupError) as failure:
        trainer.fit([spec], resources, {"CPU": 1.0}, wait, notes=notes)
    said = without_text(failure.value)
    assert isinstance(said, InputError)
    assert said.exit_code == ExitCode.PARTIAL
    assert str(said).startswith(f"{spec.name}: no progress for 5 s: ")
    assert len(notes.read_text().splitlines()) == 1


def test_lost_node(folder: Path, lose_node: Callable[[], None]) -> None:
    """Goes on with the one worker that there is room for."""
    spec = _spec(folder, "lost_node")
    lost_at, pids = _fit(spec, config.Resources(training_workers=2, min_training_workers=1), lose_node)
    assert 0 < lost_at[0] < STEPS, "the loss must come in the middle"
    assert len(pids) == 3, "two workers before, one after"
    _assert_as_straight(folder, spec)
