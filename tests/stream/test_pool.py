"""The pool of actors follows the cluster and the work: nodes that join are used, one that is lost is done without, one
that is slow holds nobody up, and an actor without work goes.

A stage that waits stands in for attribution, and numbers for GPUs: which actor works where is Ray's doing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data.exceptions import ExecutionTimeoutError

from raypipe import rows
from raypipe.settings.config import Data, Model, Resources
from raypipe.stream import cluster, pipeline
from raypipe.stream.source import read_notes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
BLOCKS, NOTES, FREE = 24, 4, 3  # blocks in all, notes of a block, blocks that an actor does before the change
IDS = [f"{i:04d}" for i in range(BLOCKS * NOTES)]
AT_A_TIME = 2  # blocks that an actor has: the one that it works on, and the next (docs/cluster.md)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cards, and a node with one."""
    for key, value in {**cluster.QUIET, "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(key, value)
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    _add(started, gpus=1)
    ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()


def _add(nodes: Any, gpus: int) -> Any:
    """A node that joins: at the second or third try where Ray's agents need more than their 15 seconds (Ray#65983)."""
    for _ in range(2):
        with suppress(Exception):
            return nodes.add_node(num_cpus=2, num_gpus=gpus)
    return nodes.add_node(num_cpus=2, num_gpus=gpus)


@dataclass(frozen=True)
class Change:
    """What happens to the cluster once `before` actors have written rows; the stream ends when `after` have worked."""

    happens: Callable[[], object]
    before: int
    after: int

    def waits(self, folder: Path) -> Callable[[str, int], bool]:
        """Does an actor, given its node and the number of its block, wait?"""
        came, changed, before, after = folder / "came", folder / "changed", self.before, self.after

        def waits(node: str, block: int) -> bool:
            n = len(list(came.iterdir()))
            return n < before or (block > FREE and not (changed.exists() and n >= after))

        return waits


def _stream(folder: Path, resources: Resources, change: Change) -> list[dict[str, Any]]:
    """Rows (note, actor, node) of a stream in which the cluster changes on the way."""
    # The stream is in the thread, and not the change: Linux kills a node when the thread that started it ends.
    pool = ThreadPoolExecutor(1)
    writing = pool.submit(_write, folder, resources, change.waits(folder))
    pool.shutdown(wait=False)
    while _actors_in(folder / "step/data") < change.before and not writing.done():
        time.sleep(0.05)
    change.happens()
    (folder / "changed").touch()
    writing.result()
    return _written(folder)


def _write(
    folder: Path,
    resources: Resources,
    waits: Callable[[str, int], bool],
    source: Callable[[pa.Table], pa.Table] | None = None,
) -> None:
    """A stream of blocks, each of which an actor keeps while it `waits`; through `source` first, if there is one."""
    came, done, out = folder / "came", folder / "done", folder / "step/data"
    for path in (came, done):
        path.mkdir(exist_ok=True)

    class Stage:
        """Defined here, so that workers need not import this file. It waits for others: no time decides."""

        def __init__(self) -> None:
            import ray

            self.actor, self.node, self.blocks = os.getpid(), ray.get_runtime_context().get_node_id(), 0

        def __call__(self, table: pa.Table) -> pa.Table:
            self.blocks += 1
            (came / f"{self.node}-{self.actor}").touch()
            while waits(self.node, self.blocks):
                time.sleep(0.05)
            (done / table["note_id"][0].as_py()).touch()
            columns = {"actor": [self.actor] * len(table), "node": [self.node] * len(table)}
            return pa.table({"note_id": table["note_id"], **columns})

    pq.write_table(pa.table({"note_id": IDS, "text": ["testo"] * len(IDS)}), folder / "notes.parquet")
    workers = cluster.join(resources)
    with workers.resumable(out):
        stream = read_notes(Data(notes=str(folder / "notes.parquet")), NOTES)
        if source is not None:
            stream = stream.map_batches(source, num_cpus=0.5, **pipeline.BLOCK)
        stream.map_batches(Stage, **workers.on_devices(), **pipeline.BLOCK).write_parquet(str(out), **rows.WRITE)


def _written(folder: Path) -> list[dict[str, Any]]:
    table = rows.read(folder / "step/data")
    assert sorted(table["note_id"].to_pylist()) == IDS, "every note came out once"
    return list(table.to_pylist())


def _actors_in(out: Path) -> int:
    """Actors that have written rows."""
    with suppress(OSError, pa.ArrowInvalid):  # a file that is being written
        return len({actor for path in out.glob("*.parquet") for actor in pq.read_table(path)["actor"].to_pylist()})
    return 0


def test_the_pool_grows_with_the_cluster(nodes: Any, tmp_path: Path) -> None:
    more = Change(lambda: _add(nodes, gpus=2), before=1, after=3)
    written = _stream(tmp_path, Resources(rows_per_block=NOTES), more)
    assert len({row["actor"] for row in written}) == 3
    assert len({row["node"] for row in written}) == 2


def test_the_peak_is_measured_where_the_actors_will_be(nodes: Any) -> None:
    workers = cluster.join(Resources())
    tell = workers.peak(Model(device="cpu"))
    while (peak := tell()) is None:  # nobody else waits for it
        time.sleep(0.05)
    assert peak > 1e8, "a product of two matrices on this CPU, whose card is a mere number"


def test_several_actors_are_on_one_card(nodes: Any, tmp_path: Path) -> None:
    none = Change(lambda: None, before=2, after=2)
    written = _stream(tmp_path, Resources(rows_per_block=NOTES, gpus_per_actor=0.5), none)
    assert len({row["actor"] for row in written}) == 2
    assert len({row["node"] for row in written}) == 1


def test_a_node_that_is_lost_is_done_without(nodes: Any, tmp_path: Path) -> None:
    """By Ray itself or by the next attempt: what a lost actor gave to the next stage, only another actor can repeat."""
    second = _add(nodes, gpus=1)
    resources = Resources(rows_per_block=NOTES, min_attribution_actors=1, no_progress_timeout_s=40)
    try:
        loss = Change(lambda: nodes.remove_node(second, allow_graceful=False), before=2, after=2)
        written = _stream(tmp_path, resources, loss)
    except ExecutionTimeoutError:
        written = _stream(tmp_path, resources, Change(lambda: None, before=1, after=1))
    assert len({row["node"] for row in written}) == 2, "both have worked"


def test_a_node_that_is_lost_is_replaced(nodes: Any, tmp_path: Path) -> None:
    second = _add(nodes, gpus=1)

    def preempt() -> None:
        nodes.remove_node(second, allow_graceful=False)
        _add(nodes, gpus=1)

    written = _stream(tmp_path, Resources(rows_per_block=NOTES), Change(preempt, before=2, after=3))
    assert len({row["node"] for row in written}) == 3


def test_a_slow_card_holds_nobody_up(nodes: Any, tmp_path: Path) -> None:
    """While it works on its first block, the other card does all blocks but those that wait for the slow one."""
    slow, came, done = _add(nodes, gpus=1).node_id, tmp_path / "came", tmp_path / "done"

    def waits(node: str, block: int) -> bool:
        n_done = len(list(done.iterdir()))
        return len(list(came.iterdir())) < 2 or (node == slow and n_done < BLOCKS - AT_A_TIME)

    _write(tmp_path, Resources(rows_per_block=NOTES), waits)
    of_slow = [row for row in _written(tmp_path) if row["node"] == slow]
    assert NOTES <= len(of_slow) <= AT_A_TIME * NOTES


def test_an_actor_without_work_goes_if_it_may(nodes: Any, tmp_path: Path) -> None:
    """The notes of the second half come when an actor has ended; until then the stream would stand still."""
    _add(nodes, gpus=1)
    came = tmp_path / "came"

    def waits(node: str, block: int) -> bool:
        return len(list(came.iterdir())) < 2

    def source(table: pa.Table) -> pa.Table:
        while table["note_id"][0].as_py() >= IDS[len(IDS) // 2] and not _has_gone(came):
            time.sleep(0.05)
        return table

    def _has_gone(came: Path) -> bool:
        actors = [int(path.name.rpartition("-")[2]) for path in came.iterdir()]
        return any(not Path(f"/proc/{actor}").exists() for actor in actors)

    _write(tmp_path, Resources(rows_per_block=NOTES, min_attribution_actors=1), waits, source)
    _written(tmp_path)
    assert _has_gone(came)
