"""What a disturbed job left, beside what its twin left: rows by their ids, training steps by number, files by content.

Left out is what tells of time, and pages that are drawn from the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

IDS = ("arm", "key", "draw", "student", "trial_id", "run", "model", "note_id", "gram", "task_id")
NO_FACTS = {"files", "attempts", "versions", "config"}  # files are compared themselves
# What is drawn from the rest, and what says how it was made: settings of the machine, Ray's records of progress
NO_RESULTS = {"report.html", "config.yaml", "lock", "written", "ray_train", "ray"}
Key = tuple[str, str]


@dataclass
class Verdict:
    """How many rows, training steps and files are not as the twin's."""

    lost: int = 0
    duplicated: int = 0
    differing: int = 0
    names: list[str] = field(default_factory=list)  # where, in ids and file names

    def add(self, other: Verdict) -> None:
        """Sum up."""
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.differing += other.differing

    @property
    def is_equal(self) -> bool:
        return not (self.lost or self.duplicated or self.differing)


def compare(twin: Path, found: Path) -> Verdict:
    """`found`: the folder of runs of the disturbed job."""
    expected, there = _items(twin), _items(found)
    verdict = Verdict()
    for key in sorted({*expected, *there}):
        mine, others = there.get(key, Counter()), expected.get(key, Counter())
        n_lost, n_more = max(0, others.total() - mine.total()), max(0, mine.total() - others.total())
        verdict.lost += n_lost
        verdict.duplicated += n_more
        verdict.differing += max(0, (others - mine).total() - n_lost)
        if mine != others:
            verdict.names.append(": ".join(key))
    return verdict


def _items(runs: Path) -> dict[Key, Counter[str]]:
    """Contents by where they lie and whose they are: a row's ids, a step's number, or nothing for a whole file."""
    items: dict[Key, Counter[str]] = defaultdict(Counter)
    for path in sorted(path for path in runs.rglob("*") if path.is_file()):
        if NO_RESULTS & set(path.relative_to(runs).parts) or path.name.startswith("events.out"):  # TensorBoard's copy
            continue
        for where, whose, content in _contents(path, runs):
            items[where, whose][content] += 1
    return items


def _contents(path: Path, runs: Path) -> Iterator[tuple[str, str, str]]:
    where = str(path.relative_to(runs))
    if path.suffix == ".parquet":  # the shards of a folder are one table
        for row in pq.read_table(path).to_pylist():
            whose = json.dumps([row[name] for name in IDS if name in row], default=str)
            yield str(path.parent.relative_to(runs)), whose, _digest(json.dumps(_timeless(row), default=str).encode())
    elif path.name == "metrics.jsonl":
        for line in path.read_text().splitlines():
            facts = json.loads(line)
            yield where, f"step {facts['step']}", json.dumps(_timeless(facts))
    elif path.suffix == ".json":
        yield where, "", json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True)
    else:
        yield where, "", _digest(path.read_bytes())


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if not _tells_time(key, inner)}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _tells_time(key: str, value: Any) -> bool:
    is_of_steps = key == "steps" and not isinstance(value, int)  # seconds by step; else it counts a training's
    return key in NO_FACTS or key.startswith("seconds") or key.endswith("_seconds") or is_of_steps


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
