"""Memory of training rows: two processes go through an epoch of the same file, as two workers of a machine do.

    python benchmarks/bench_rows.py [--tokens 100000000] [--readers 2]        3 minutes on two cores, 2 GB of disk

Rows of random tokens (log-normal lengths, median 150) are written as a step writes them, stored as a training stores
them (training/examples.py), and read in the order of the schedule, each batch padded as the loop pads it; no model
runs. Memory is what the kernel says at the end of the epoch (/proc/PID/smaps_rollup): `own` belongs to the process
alone and is what must not grow with the tokens; `mapped` are pages of the file, which all processes share and which
the kernel takes back when others need the room; `PSS` is own and the process's share of what is shared. The last line
holds the rows in memory, as every worker did before they were mapped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from raypipe import rows
from raypipe.settings.config import Training
from raypipe.training import examples, schedule
from raypipe.training.loss import batch_of

ARM, ROWS_PER_FILE = "arm", 20_000
MB = 1e6


@dataclass(frozen=True)
class Memory:
    """Of one process, in bytes."""

    own: int  # anonymous pages
    mapped: int  # file pages that are mapped and present
    pss: int

    @classmethod
    def here(cls) -> Memory:
        """Of this process."""
        kb = {name: int(n) for name, n in re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())}
        return cls(1024 * kb["Anonymous"], 1024 * (kb["Rss"] - kb["Anonymous"]), 1024 * kb["Pss"])


@dataclass(frozen=True)
class Epoch:
    """What one reader found."""

    rows: int
    tokens: int
    seconds: float
    before: Memory  # with everything imported, before the rows
    after: Memory


def write(folder: Path, n_tokens: int) -> None:
    """About so many random tokens, as the Parquet files of a step."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    written = 0
    while written < n_tokens:
        lengths = np.clip(rng.lognormal(np.log(150), np.log(700 / 150) / 1.645, ROWS_PER_FILE), 8, 2048).astype(int)
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), n_tokens - written) + 1]
        total, first = int(lengths.sum()), written
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        lists = {
            "input_ids": rng.integers(0, 128_000, total, dtype=np.int32),
            "loss_weight": (rng.random(total) < 0.2).astype(np.float32),
            "branch": np.zeros(total, np.int16),
        }
        named = {
            "arm": pa.array([ARM] * len(lengths)),
            "key": pa.array([f"note{rng.integers(2**40):013d}\ttask\t0\t{first + n}" for n in range(len(lengths))]),
            "draw": pa.array(np.zeros(len(lengths), np.int16)),
            **{name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in lists.items()},
        }
        rows.write(pa.table(named, schema=examples.STORED), folder / f"{first:015d}.parquet")
        written += total


def epoch(data: examples.Examples, training: Training) -> Iterator[int]:
    """Tokens of each optimiser step of an epoch, its rows padded as the loop does."""
    for step in schedule.steps(data.length, data.draw, training):
        for batch in schedule.passes_of(step, data.length, 0, 1, training.micro_batch_tokens):
            batch_of(data, batch, 0, torch.device("cpu"))
        yield int(data.length[step].sum())


def _reader(source: Path, in_memory: bool, found: multiprocessing.SimpleQueue[Epoch], all_done: object) -> None:
    torch.set_num_threads(1)
    before, start = Memory.here(), time.perf_counter()
    data = examples.read(source, ARM) if in_memory else examples.mapped(source)
    tokens = sum(epoch(data, Training(epochs=1)))
    seconds = time.perf_counter() - start
    all_done.wait()  # type: ignore[attr-defined]  # so that pages are counted as shared
    found.put(Epoch(len(data), tokens, seconds, before, Memory.here()))
    all_done.wait()  # type: ignore[attr-defined]


def read(source: Path, n_readers: int, in_memory: bool = False) -> list[Epoch]:
    """What so many processes find that read at the same time. `source`: a stored file, or the folder of a step."""
    context = multiprocessing.get_context("spawn")
    found, all_done = context.SimpleQueue(), context.Barrier(n_readers)
    readers = [context.Process(target=_reader, args=(source, in_memory, found, all_done)) for _ in range(n_readers)]
    for reader in readers:
        reader.start()
    epochs = [found.get() for _ in readers]
    for reader in readers:
        reader.join()
    return epochs


def table(name: str, epochs: list[Epoch]) -> Iterator[str]:
    """Lines of a markdown table, one for each reader."""
    for number, of in enumerate(epochs, start=1):
        own, mapped, pss = (getattr(of.after, part) - getattr(of.before, part) for part in ("own", "mapped", "pss"))
        cells = f"{of.tokens / of.seconds:,.0f} | {own / MB:,.0f} | {mapped / MB:,.0f} | {pss / MB:,.0f}"
        yield f"| {name}, reader {number} | {of.rows:,} | {of.tokens:,} | {cells} |"


HEAD = ("| rows | rows read | tokens | tokens/s | own MB | mapped MB | PSS MB |", "|---|---|---|---|---|---|---|")


def machine() -> str:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    with Path("/proc/meminfo").open() as file:
        memory = int(file.readline().split()[1]) * 1024
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.M))
    return f"{cpu[1] if cpu else platform.processor()}, {cores} cores, {memory / 1e9:.0f} GB"


def main() -> None:
    """Writes, reads, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--readers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-rows-") as scratch:
        step, file = Path(scratch, "rows"), Path(scratch, "rows.arrow")
        write(step, options.tokens)
        before, start = Memory.here(), time.perf_counter()
        examples.store(step, ARM, file)
        seconds, own = time.perf_counter() - start, Memory.here().own - before.own
        print(machine())
        print(f"stored: {file.stat().st_size / MB:,.0f} MB in {seconds:.1f} s, {own / MB:,.0f} MB of memory\n")
        print("\n".join([*HEAD, *table("mapped", read(file, options.readers))]), flush=True)
        print("\n".join(table("in memory", read(step, 1, in_memory=True))))


if __name__ == "__main__":
    main()
