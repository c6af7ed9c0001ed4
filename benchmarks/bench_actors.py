"""The stream of attribution with 1 to 64 actors on logical nodes: how much of their time goes to work.

    python benchmarks/bench_actors.py weak   --actors 1 2 4 8 16 --json weak.json     the same work for each actor
    python benchmarks/bench_actors.py strong --actors 4 8 16 32 --json strong.json    the same work for all together
    python benchmarks/bench_actors.py limit  --actors 32 --json limit.json            blocks a second at most, here
    python benchmarks/bench_actors.py model weak.json limit.json                      what follows for 64 to 512 GPUs

No model and no GPU: an actor SLEEPS as long as a GPU would compute (`--seconds` a block of 256 notes) and puts out rows
of the size that relevance has. All else is the job's own: Ray nodes of 8 CPUs and 8 cards (processes of this machine,
the cards are mere numbers), the reader, the check of held-out notes, the pool of actors, the checkpoint and the writer.

Efficiency: the seconds slept, over actors times the seconds from when all of them stand to the last block's end. The
first blocks' way through the stream and the last ones' unequal ends are in it, the start of processes is not, and
stands beside. `driver`: CPU milliseconds a block of the one process that hands out blocks; `cluster`: of all others.
Both run on the two cores that also play every node: where they are busy, they limit the figures, not Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from raypipe import rows
from raypipe.settings.config import Data, Resources
from raypipe.stream import cluster
from raypipe.stream.source import read_notes
from raypipe.stream.stages.hold_out import hold_out

CARDS = 8  # and CPUs, of a node
NOTES = 256  # of a block: resources.rows_per_block
WORDS, TASKS = 150, 2  # of a note
TEXT = "paziente con dispnea e febbre da tre giorni, nega dolore toracico; " * 13  # 870 characters, 150 words
PATIENCE_S = 400.0
BLOCK: dict[str, Any] = {"batch_format": "pyarrow"}  # as stream/pipeline.py has it, which would load torch


class Sleeper:
    """Stands in for the stage that attributes. The first block waits until all actors are there."""

    def __init__(self, seconds: float, actors: int, ready: str) -> None:
        self.seconds, self.actors, self.ready, self.is_ready = seconds, actors, Path(ready), False
        (self.ready / str(os.getpid())).touch()

    def __call__(self, table: pa.Table) -> pa.Table:
        end = time.time() + PATIENCE_S
        while not self.is_ready and time.time() < end:
            self.is_ready = len(os.listdir(self.ready)) >= self.actors
            time.sleep(0.0 if self.is_ready else 0.2)
        began = time.time()
        time.sleep(self.seconds * len(table) / NOTES)
        n = len(table)
        offsets = np.tile(np.arange(WORDS, dtype=np.int32) * 6, n)
        relevance = np.random.default_rng(0).random(n * TASKS * WORDS).astype(np.float16)
        return pa.table(
            {
                "note_id": table["note_id"],
                "word_start": _lists(offsets, WORDS),
                "word_end": _lists(offsets + 5, WORDS),
                "relevance": _lists(relevance, TASKS * WORDS),
                "actor": pa.array(np.full(n, os.getpid(), np.int32)),
                "began": pa.array(np.full(n, began)),
                "ended": pa.array(np.full(n, time.time())),
            }
        )


def _lists(values: np.ndarray, width: int) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, width, dtype=np.int32), pa.array(values))


@contextmanager
def nodes(n: int) -> Iterator[None]:
    """A head that reads and writes, and n nodes with cards."""
    for key, value in {**cluster.QUIET, "RAY_AUTH_MODE": "disabled"}.items():
        os.environ.setdefault(key, value)
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        for _ in range(n):
            started.add_node(num_cpus=CARDS, num_gpus=CARDS)
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        started.shutdown()


def _cpu_seconds() -> tuple[float, dict[int, float]]:
    """Of this process, and of each process below it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    others = {}
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        others[process.pid] = times.user + times.system
    return usage.ru_utime + usage.ru_stime, others


def _memory_of(pids: Sequence[int]) -> float:
    """Median bytes of these processes that they share with nobody."""
    uss = []
    for pid in pids:
        try:
            uss.append(psutil.Process(pid).memory_full_info().uss)
        except psutil.NoSuchProcess:
            continue
    return float(np.median(uss)) if uss else float("nan")


def run(actors: int, blocks: int, seconds: float, folder: Path) -> dict[str, Any]:
    """One stream of so many blocks, and what its actors say of it."""
    ready, out = folder / "ready", folder / "attribute" / "data"
    ready.mkdir(parents=True)
    ids = [f"{i:08d}" for i in range(blocks * NOTES)]
    rows.write(pa.table({"note_id": ids, "text": [TEXT] * len(ids)}), folder / "notes.parquet")
    workers: Any = cluster.join(Resources(attribution_actors=actors, gpus_per_actor=1.0, use_gpu=True))
    driver, others = _cpu_seconds()
    began = time.time()
    with workers.resumable(out):
        notes = read_notes(Data(notes=str(folder / "notes.parquet")), NOTES)
        kwargs = {"guard": None, "last_hash": None, "pretraining_share": 0.0, "pretrains": False}
        notes = notes.map_batches(hold_out, fn_kwargs=kwargs, num_cpus=0.5, **BLOCK)
        args = (seconds, actors, str(ready))
        asleep = notes.map_batches(Sleeper, fn_constructor_args=args, **workers.on_devices(), **BLOCK)
        asleep.write_parquet(str(out), **rows.WRITE)
    wall = time.time() - began
    driver_after, others_after = _cpu_seconds()
    table = rows.read(out, ["actor", "began", "ended"])
    if len(table) != len(ids):
        raise SystemExit(f"error: {len(table)} rows of {len(ids)} notes")
    per_block = {(row["actor"], row["began"]): row["ended"] for row in table.to_pylist()}
    standing = max(path.stat().st_mtime for path in ready.iterdir())
    slept = sum(end - start for (_, start), end in per_block.items())
    ended = max(per_block.values())
    of_others = sum(after - others.get(pid, 0.0) for pid, after in others_after.items())
    return {
        "actors": actors,
        "working": len({actor for actor, _ in per_block}),
        "blocks": len(per_block),
        "seconds_a_block": seconds,
        "efficiency": slept / (actors * (ended - standing)),
        "window_s": ended - standing,
        "start_s": standing - began,
        "wall_s": wall,
        "blocks_a_second": len(per_block) / (ended - standing),
        "notes_a_second": len(ids) / (ended - standing),
        "driver_ms": 1000 * (driver_after - driver) / blocks,
        "cluster_ms": 1000 * of_others / blocks,
        "actor_mb": _memory_of([int(path.name) for path in ready.iterdir()]) / 1e6,
        "load": os.getloadavg()[0],
    }


def measure(kind: str, sizes: Sequence[int], seconds: float, per_actor: int) -> list[dict[str, Any]]:
    """Runs of one kind, largest last, on one cluster."""
    found = []
    with nodes(-(-max(sizes) // CARDS)), tempfile.TemporaryDirectory() as folder:
        for n in [sizes[0], *sizes]:  # the first one warms the cluster up
            blocks = n * per_actor if kind == "weak" else max(sizes) * per_actor
            row = run(n, blocks, seconds, Path(folder) / f"{n}-{len(found)}-{time.time():.0f}")
            found.append(row)
            print(_line(row), flush=True)
    return found[1:]


def _line(row: dict[str, Any]) -> str:
    shown = {
        "actors": "3d", "blocks": "5d", "efficiency": "6.1%", "window_s": "6.1f", "start_s": "6.1f",
        "notes_a_second": "8,.0f", "driver_ms": "5.1f", "cluster_ms": "6.1f", "actor_mb": "5.0f", "load": "4.1f",
    }  # fmt: skip
    return ", ".join(f"{name} {row[name]:{form}}" for name, form in shown.items())


def model(files: Sequence[Path]) -> None:
    """What one driver can feed: it spends a share of its time whatever happens, and some on each block (least squares).

    Blocks a second are GPUs over seconds a block.
    """
    found = [row for file in files for row in json.loads(file.read_text())]
    spent = [row["driver_ms"] * row["blocks"] / 1000 for row in found]
    (idle, per_block), *_ = np.linalg.lstsq([[row["wall_s"], row["blocks"]] for row in found], spent)
    most, here = (1 - idle) / per_block, max(row["blocks_a_second"] for row in found)
    print(f"driver: {idle:.0%} of a core and {1000 * per_block:.1f} ms a block", end="")
    print(f", so {most:.0f} blocks/s at most; seen here: {here:.1f}")
    print("seconds a block | GPUs that the driver feeds | that were fed here | driver's load at 64, 128, 256, 512 GPUs")
    for seconds in (1, 2, 4, 8, 16, 38):
        loads = "  ".join(f"{idle + n * per_block / seconds:5.0%}" for n in (64, 128, 256, 512))
        print(f"{seconds:15d} | {seconds * most:26.0f} | {seconds * here:18.0f} | {loads}")


def main() -> None:
    """Measure, or read what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["weak", "strong", "limit", "model"])
    parser.add_argument("files", nargs="*", type=Path, help="model: what was measured")
    parser.add_argument("--actors", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=4.0, help="that an actor sleeps over a block of 256 notes")
    parser.add_argument("--blocks", type=int, default=8, help="for each actor; strong: of the largest pool")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.kind == "model":
        model(options.files)
        return
    seconds = 0.05 if options.kind == "limit" else options.seconds
    blocks = 40 if options.kind == "limit" else options.blocks
    found = measure(options.kind, options.actors, seconds, blocks)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
