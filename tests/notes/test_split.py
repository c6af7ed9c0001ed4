"""A split made here: no patient in two splits, every label in its share, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raypipe.notes.split import split_by_group
from raypipe.settings.config import Splitting

N = 600


def _corpus(n_groups: int = 240) -> tuple[pa.Table, pa.Table]:
    """Notes of patients with several visits, and labels of a common task, a rare one and one of three classes."""
    rng = np.random.default_rng(3)
    ids = [f"n{i}" for i in range(N)]
    groups = [f"p{g}" if g else None for g in rng.integers(0, n_groups, N)]
    notes = pa.table({"note_id": ids, "group_id": pa.array(groups, pa.string())})
    rows = [("common", id, str(int(rng.random() < 0.4))) for id in ids]
    rows += [("rare", id, str(int(rng.random() < 0.04))) for id in ids[: N // 2]]
    rows += [("three", id, "abc"[rng.integers(0, 3)]) for id in ids]
    names = ("task_id", "note_id", "label")
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}), notes


def _split(labels: pa.Table, notes: pa.Table, **settings: float) -> dict[str, str]:
    made = split_by_group(labels, notes, Splitting(**settings))
    pairs = set(zip(made["note_id"].to_pylist(), made["split"].to_pylist(), strict=True))
    assert len({note_id for note_id, _ in pairs}) == len(pairs), "a note is in one split, whatever the task"
    return dict(pairs)


def test_no_group_is_in_two_splits() -> None:
    labels, notes = _corpus()
    split_of = _split(labels, notes)
    seen: dict[str, set[str]] = {}
    for note_id, group in zip(notes["note_id"].to_pylist(), notes["group_id"].to_pylist(), strict=True):
        if group is not None:
            seen.setdefault(group, set()).add(split_of[note_id])
    assert {len(splits) for splits in seen.values()} == {1}


def test_every_label_has_its_share_in_every_split() -> None:
    labels, notes = _corpus()
    made = split_by_group(labels, notes, Splitting(dev=0.2, test=0.3))
    sizes = Counter(zip(*(made[name].to_pylist() for name in ("task_id", "label", "split")), strict=True))
    for task_id, label in {(task, label) for task, label, _ in sizes}:
        total = sum(sizes[task_id, label, split] for split in ("train", "dev", "test"))
        for split, share in (("train", 0.5), ("dev", 0.2), ("test", 0.3)):
            assert sizes[task_id, label, split] == pytest.approx(share * total, abs=max(2, 0.06 * total))


def test_the_seed_alone_decides_not_the_order_of_the_rows() -> None:
    labels, notes = _corpus()
    shuffled = labels.take(np.random.default_rng(1).permutation(len(labels)))
    reordered = notes.take(np.random.default_rng(2).permutation(len(notes)))
    assert _split(labels, notes) == _split(shuffled, reordered)
    assert _split(labels, notes) != _split(labels, notes, seed=1)


def test_a_split_of_share_zero_stays_empty() -> None:
    labels, notes = _corpus()
    assert set(_split(labels, notes, dev=0.0).values()) == {"train", "test"}


def test_rows_keep_their_label_and_gain_a_split() -> None:
    labels, notes = _corpus()
    made = split_by_group(labels, notes, Splitting())
    assert made.select(labels.column_names) == labels
    assert pc.all(pc.is_in(made["split"], pa.array(["train", "dev", "test"]))).as_py()


def test_a_rare_label_is_trained_on_before_it_is_tested() -> None:
    labels = pa.table({"task_id": ["t"] * 10, "note_id": [f"n{i}" for i in range(10)], "label": ["1"] + ["0"] * 9})
    notes = pa.table({"note_id": [f"n{i}" for i in range(10)], "group_id": pa.nulls(10, pa.string())})
    made = split_by_group(labels, notes, Splitting())
    assert made.filter(pc.equal(made["label"], "1"))["split"].to_pylist() == ["train"]
