"""A million notes through the real job: hold-out, attribution, masking, rendering, and the reader of training.

    python benchmarks/bench_scale.py --notes 20000          a first look
    python benchmarks/bench_scale.py                        1.9M notes of 2.1 kB, 4 GB; takes 30 GB of disk, and on two
                                                            Zen 5 cores 33 minutes (docs/experiments/scale.md)

Everything is the project's own (runs/driver.py makes the steps on a Ray that is started here) but one stage: **the
attribution is a stand-in that sleeps as a GPU would**, `--ms` for each batch of 32 notes (16,384 tokens), and gives
each word a made-up relevance. Notes are sentences of the demo's generator, put together at random to log-normal
lengths. The job is killed (SIGKILL) when half of the masks are written, and started again; the audits of the steps
then prove that every note came out once.

Printed, as markdown: seconds and rows a second of each step, the slowest and the fastest tenth of the masking stream,
the largest own memory of the driver and of a worker (resident without what is shared), of the object store what was
ever touched (its size is capped by --store), bytes spilled to disk, the largest at any look, a look a second. Then the
readers (bench_rows.py), and Ray's overhead: seconds for each batch in the stream against a bare loop over the same
notes, both with one stand-in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_rows
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from raypipe import rows
from raypipe.hashing import stable_hash
from raypipe.models import loading
from raypipe.notes import synthetic
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.stream import cluster, pipeline
from raypipe.stream.inline import Inline
from raypipe.stream.stages.attribute import WITH_TEXT, tasks_of
from raypipe.training import examples
from raypipe.words import word_spans

NOTES_PER_FILE, WORDS, SIGMA = 50_000, 330, 0.6  # mean words of a note; sigma of the logarithm
LABELLED = {"train": 200, "test": 50}
NOTES_A_BATCH = 32
STEPS = ("corpus", "mask", "train/rows")
ARM = "decselfmask"
MB = 1e6


class StandIn:
    """In the place of stages/attribute.py: sleeps as a GPU would, and makes relevance up."""

    seconds, calls = 0.0, ""  # of a batch; the folder for a line on each call

    def __init__(self, model: Any, attribution: config.Attribution, prompt: Any, tasks: Sequence[Any], *_: Any) -> None:
        self.task_ids, self.n_tasks = [task.id for task in tasks], attribution.tasks_per_note
        self.relevance = np.random.default_rng(0).random(1 << 20).astype(np.float16)

    def __call__(self, table: pa.Table) -> pa.Table:
        start = time.perf_counter()
        notes = table.to_pylist()
        made = [note if note["error"] else self._row(note) for note in notes]
        n_batches = -(-sum("relevance" in row for row in made) // NOTES_A_BATCH)
        time.sleep(self.seconds * n_batches)
        out = rows.table(made, WITH_TEXT)
        with Path(self.calls, str(os.getpid())).open("a") as log:
            log.write(f"{start} {time.perf_counter()} {n_batches}\n")
        return out

    def _row(self, note: dict[str, Any]) -> dict[str, Any]:
        words = word_spans(note["text"])
        tasks = tasks_of(note["note_id"], self.task_ids, self.n_tasks, 0)
        first = stable_hash(note["note_id"]) % (len(self.relevance) // 2)
        return {
            "note_id": note["note_id"],
            "text": note["text"],
            "task_id": tasks,
            "predicted": [synthetic.NO] * len(tasks),
            "margin": [1.0] * len(tasks),
            "word_start": words[:, 0],
            "word_end": words[:, 1],
            "layers": [0],
            "relevance": self.relevance[first : first + len(tasks) * len(words)],
            "n_tokens": len(words),
            "n_cut_tokens": 0,
        }


def write_corpus(folder: Path, n_notes: int) -> None:
    """Notes, labels, tasks, and a tokenizer with a model of its own, which nothing loads the weights of."""
    made = synthetic.generate(0, n_labelled=8, n_unlabelled=400, n_dev=8, n_test=8, n_pretraining=1)
    split = pc.split_pattern(made.notes["text"].combine_chunks(), ". ")
    sentences = pa.array([f"{sentence.strip('.')}." for note in split.to_pylist() for sentence in note])
    words = np.mean(pc.count_substring(sentences, " ").to_numpy()) + 1
    rng = np.random.default_rng(0)
    (folder / "notes").mkdir()
    for first in range(0, n_notes, NOTES_PER_FILE):
        ids = np.arange(first, min(n_notes, first + NOTES_PER_FILE))
        log_mean = np.log(WORDS / words) - SIGMA**2 / 2
        n_sentences = np.maximum(1, np.round(rng.lognormal(log_mean, SIGMA, len(ids)))).astype(int)
        drawn = sentences.take(pa.array(rng.integers(0, len(sentences), n_sentences.sum())))
        lists = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(n_sentences)]), pa.int32()), drawn)
        names = {"note_id": pa.array([f"n{i:08d}" for i in ids]), "patient": pa.array([f"p{i // 3:08d}" for i in ids])}
        table = pa.table({**names, "text": pc.binary_join(lists, " ")})
        rows.write(table, folder / "notes" / f"{first:09d}.parquet", row_group_size=5_000)
    notes = [f"n{3 * i:08d}" for i in range(sum(LABELLED.values()))]  # one of a patient
    splits = [split for split, n in LABELLED.items() for _ in range(n)]
    labels = [
        {"task_id": task["id"], "note_id": note, "label": task["options"][(i + t) % 2], "split": split}
        for t, task in enumerate(made.tasks)
        for i, (note, split) in enumerate(zip(notes, splits, strict=True))
    ]
    rows.write(rows.table(labels, rows.LABELS), folder / "labels.parquet")
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": made.tasks}, allow_unicode=True))
    tiny = config.Pretrain(vocab_size=4000, hidden_size=16, intermediate_size=32, layers=2, heads=2, context=4096)
    loading.train_tokenizer(made.notes["text"].to_pylist(), tiny, folder / "model")
    tokenizer = loading.load_tokenizer(config.Model(path=str(folder / "model")))
    loading.from_scratch(tiny, tokenizer).save_pretrained(folder / "model")


def settings(folder: Path, actors: int, block: int) -> config.Config:
    """A job on these notes, in blocks of so many; one task is asked of each."""
    return config.Config.model_validate(
        {
            "name": "scale",
            "runs": str(folder / "runs"),
            "data": {
                "notes": str(folder / "notes"),
                "labels": str(folder / "labels.parquet"),
                "tasks": str(folder / "tasks.yaml"),
                "columns": {"group_id": "patient"},
            },
            "model": {"path": str(folder / "model")},
            "scorer": {"untuned": True},
            "prompt": {"max_tokens": 2048},
            "attribution": {"tasks_per_note": 1},
            "arms": {"sft": {}, ARM: {"masking": {"ratio": 0.15}}},
            "resources": {"attribution_actors": actors, "use_gpu": False, "rows_per_block": block},
        }
    )


def job(folder: Path, actors: int, block: int) -> None:
    """In a process of its own: the steps, and a line on each that was made."""
    run = Run(settings(folder, actors, block))
    for step in STEPS:
        (folder / "stage").write_text(step)
        start = time.perf_counter()
        if step == "corpus":
            run.open()
            run.cluster  # noqa: B018 (starts Ray)
        else:
            driver.make(run, [step])
        if not (folder / "done").exists() or step not in (folder / "done").read_text():
            with (folder / "done").open("a") as log:
                log.write(json.dumps({"step": step, "seconds": time.perf_counter() - start}) + "\n")


def overhead(folder: Path, n_batches: int, block: int) -> None:
    """In a process of its own: seconds a batch of one stand-in, in the stream and in a bare loop; prints both."""
    of_run = settings(folder, 1, block)
    # three calls at least, and all labelled notes
    n_notes = max(NOTES_A_BATCH * n_batches, 3 * block, 3 * sum(LABELLED.values()))
    data = of_run.data.model_copy(update={"transductive": True, "notes": str(folder / "few.parquet")})
    rows.write(rows.read(min((folder / "notes").iterdir())).slice(0, n_notes), folder / "few.parquet")
    run = Run(of_run.model_copy(update={"name": "overhead", "data": data})).open()
    job = run.job
    _called(folder)
    pipeline.attribute(job, run.backbone, run.folder / "streamed" / "data")
    streamed = _called(folder)
    alone = pipeline.Job(job.settings, job.corpus, Inline(1, has_gpu=False))
    notes = pa.concat_tables(pipeline._notes(alone).iter_batches()).combine_chunks()
    stand_in = StandIn(None, job.settings.attribution, None, job.corpus.tasks)
    for start in range(0, len(notes), block):
        stand_in(notes.slice(start, block))
    bare = _called(folder)
    # Without the first tenth, during which Ray still starts the workers of later stages. A bare loop waits for nothing.
    first, *later = streamed[len(streamed) // 10 :]
    in_stream = (later[-1][1] - first[1]) / sum(n for _, _, n in later)
    in_loop = sum(end - start for start, end, _ in bare[1:]) / sum(n for _, _, n in bare[1:])
    print(json.dumps({"batches": sum(int(n) for *_, n in streamed), "stream": in_stream, "loop": in_loop}))


def _called(folder: Path) -> list[tuple[float, float, float]]:
    """Begin, end and batches of the calls since the last time, in order."""
    lines = [line for file in (folder / "calls").iterdir() for line in file.read_text().splitlines()]
    for file in (folder / "calls").iterdir():
        file.unlink()
    return sorted(tuple(map(float, line.split())) for line in lines)  # type: ignore[misc]


@dataclass
class Watched:
    """The largest of what was seen of the job's processes, by step, in bytes; and rows written over time."""

    folder: Path
    largest: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    written: list[tuple[float, int]] = field(default_factory=list)  # seconds, rows of the masking stream

    @property
    def masked(self) -> int:
        """Rows in the files of the step `mask`."""
        return cluster.Cluster(1, 0, 1, 1, 0).rows_written(self.folder / "runs/scale/mask/data")

    def look(self, process: psutil.Process) -> None:
        """At the driver and all that descends from it."""
        step = (self.folder / "stage").read_text() if (self.folder / "stage").exists() else "corpus"
        seen = self.largest[step]
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory, name = each.memory_info(), " ".join(each.cmdline())
                own = memory.rss - memory.shared
                if each.pid == process.pid:
                    kind = "driver"
                elif name.startswith("ray::"):
                    kind = "worker"
                else:
                    kind = "Ray itself"
                    if "raylet/raylet" in name:
                        seen["store"] = max(seen["store"], memory.shared)
                seen[kind] = max(seen[kind], own)
        spilled = Path(os.environ["RAY_TMPDIR"]).glob("raypipe-*/ray/session_2*/ray_spilled_objects*/*")
        seen["spilled"] = max(seen["spilled"], sum(_size(path) for path in spilled))
        if step == "mask":
            self.written.append((time.perf_counter(), self.masked))


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def watched(folder: Path, arguments: Sequence[str], until: int | None = None) -> Watched:
    """The job in a process of its own, looked at every second; killed once `until` rows are masked."""
    command = [sys.executable, __file__, *arguments, "--job", str(folder)]
    child = subprocess.Popen(command, start_new_session=True)  # noqa: S603
    seen, process = Watched(folder), psutil.Process(child.pid)
    try:
        while child.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.look(process)
            if until is not None and seen.written and seen.written[-1][1] >= until:
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    expected = 0 if until is None else -signal.SIGKILL
    if child.returncode != expected:
        raise SystemExit(f"the job ended with {child.returncode}, not {expected}")
    return seen


def steady(written: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Rows a second in the slowest and the fastest tenth of the time in which rows were written; nan: too short."""
    first = next((i for i, (_, n) in enumerate(written) if n > written[0][1]), len(written))
    if len(written) - first < 2:
        return np.nan, np.nan
    seconds, done = np.array(written[first:]).T
    marks = np.linspace(seconds[0], seconds[-1], 11)
    rates = np.diff(np.interp(marks, seconds, done)) / np.diff(marks)
    return float(rates.min()), float(rates.max())


def report(folder: Path, n_notes: int, attempts: Sequence[Watched], seconds: Mapping[str, float]) -> Iterator[str]:
    """Lines of the table of steps."""
    yield "| step | rows | s | rows/s | driver MB | largest worker MB | Ray itself MB | store MB | spilled MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    n_rows = json.loads((folder / "runs/scale/train/rows/manifest.json").read_text())["rows"]
    for step in STEPS:
        largest = {
            kind: max(attempt.largest[step][kind] for attempt in attempts)
            for kind in ("driver", "worker", "Ray itself", "store", "spilled")
        }
        n = n_rows if step == "train/rows" else n_notes
        memory = " | ".join(f"{size / MB:,.0f}" for size in largest.values())
        yield f"| {step} | {n:,} | {seconds[step]:,.0f} | {n / seconds[step]:,.0f} | {memory} |"


def main() -> None:
    """Makes the notes, runs, kills, resumes, reads, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=1_900_000)
    parser.add_argument("--actors", type=int, default=2, help="stand-ins for GPUs")
    parser.add_argument("--ms", type=float, default=20.0, help="that a stand-in sleeps for each batch of 32 notes")
    # a GPU is busy for seconds with the default of 256 (resources.rows_per_block), this stand-in for a sixth of one
    parser.add_argument("--block", type=int, default=1024, help="notes of a block")
    parser.add_argument("--store", type=float, default=1000, help="MB of Ray's object store")
    parser.add_argument(
        "--batches", type=int, default=1500, help="from which Ray's overhead is measured; 1,562 at most"
    )
    parser.add_argument("--job", type=Path, help="internal: what the process of its own runs in")
    parser.add_argument("--overhead", action="store_true", help="internal: it measures the overhead")
    options = parser.parse_args()
    if options.job is not None:
        StandIn.seconds, StandIn.calls = options.ms / 1000, str(options.job / "calls")
        pipeline.Attribute = StandIn  # type: ignore[misc, assignment]
        if options.overhead:
            overhead(options.job, options.batches, options.block)
        else:
            job(options.job, options.actors, options.block)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the job and its folder go, too
    with tempfile.TemporaryDirectory(prefix="rs-") as scratch:  # short: Ray's sockets lie below it
        folder = Path(scratch)
        os.environ["RAY_TMPDIR"] = scratch
        os.environ["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(int(options.store * MB))
        (folder / "calls").mkdir()
        measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """All of it, in a folder that is deleted afterwards."""
    arguments = [f"--{name}={getattr(options, name)}" for name in ("actors", "ms", "store", "batches", "block")]
    began = time.perf_counter()
    write_corpus(folder, options.notes)
    n_bytes = sum(path.stat().st_size for path in (folder / "notes").iterdir())
    made = time.perf_counter()
    print(f"{bench_rows.machine()}\n{options.notes:,} notes written in {made - began:.0f} s, {n_bytes / MB:,.0f} MB")
    first = watched(folder, arguments, until=options.notes // 2)
    killed = time.perf_counter()
    second = watched(folder, arguments)
    ended = time.perf_counter()
    done = {line["step"]: line["seconds"] for line in map(json.loads, (folder / "done").read_text().splitlines())}
    done["mask"] += killed - made - done["corpus"]
    print("\n".join(report(folder, options.notes, [first, second], done)))
    for name, attempt in (("until it was killed", first), ("resumed", second)):
        slow, fast = steady(attempt.written)
        print(f"\nmask, {name}: {slow:,.0f} to {fast:,.0f} rows/s", end="")
    print(f"\n\nthe job, killed and resumed: {(ended - made) / 60:.1f} min\n")
    start = time.perf_counter()
    examples.store(folder / "runs/scale/train/rows/data", ARM, folder / "rows.arrow")
    print(f"training rows stored: {_size(folder / 'rows.arrow') / MB:,.0f} MB, {time.perf_counter() - start:.0f} s\n")
    epochs = bench_rows.read(folder / "rows.arrow", 2)
    print("\n".join([*bench_rows.HEAD, *bench_rows.table("mapped", epochs)]), flush=True)
    command = [sys.executable, __file__, *arguments, "--overhead", "--job", str(folder)]
    last = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]  # noqa: S603
    ray = json.loads(last)
    ms = {name: 1000 * ray[name] for name in ("stream", "loop")}
    share = ms["stream"] / ms["loop"] - 1
    print(f"\nRay: {ms['stream']:.1f} ms a batch, a bare loop: {ms['loop']:.1f}; overhead {100 * share:.1f} %", end="")
    print(f" ({ray['batches']} batches that sleep {options.ms:g} ms)")
    print(f"\nall of it: {(time.perf_counter() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
