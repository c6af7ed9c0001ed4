"""Train, dev and test for labelled notes that come without a split: by group, stratified, the same for the same seed.

Greedy iterative stratification (Sechidis et al. 2011, "On the stratification of multi-label data"), with groups in the
place of examples and one change: classes are ranked by rarity once, not after each draw. Groups with the rarest label
come first, large ones before small ones; each goes to the split that lacks most of that label.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.hashing import stable_hash
from raypipe.settings.config import Splitting

SPLITS = ("train", "dev", "test")
_Class = tuple[str, str | None]  # task and label


def split_by_group(labels: pa.Table, notes: pa.Table, settings: Splitting) -> pa.Table:
    """`labels` (task_id, note_id, label) with a column split. `notes`: columns note_id and group_id of all notes.

    A note without a group is its own. All tasks of a note are in one split. The order of the rows does not matter.
    """
    labelled = notes.filter(pc.is_in(notes["note_id"], pc.unique(labels["note_id"])))
    group_of = dict(zip(labelled["note_id"].to_pylist(), labelled["group_id"].to_pylist(), strict=True))
    unit_of = {id: ("note", id) if group_of.get(id) is None else ("group", group_of[id]) for id in _ids(labels)}
    classes: dict[tuple[str, str], Counter[_Class]] = defaultdict(Counter)
    columns = (labels[name].to_pylist() for name in ("note_id", "task_id", "label"))
    for note_id, task_id, label in zip(*columns, strict=True):
        classes[unit_of[note_id]][task_id, label] += 1
    sizes = Counter(unit_of.values())
    split_of = _assigned(classes, sizes, settings)
    split = pa.array([split_of[unit_of[note_id]] for note_id in labels["note_id"].to_pylist()], pa.string())
    return labels.append_column("split", split)


def _ids(labels: pa.Table) -> list[str]:
    return pc.unique(labels["note_id"]).to_pylist()


def _assigned(
    classes: dict[tuple[str, str], Counter[_Class]], sizes: Counter[tuple[str, str]], settings: Splitting
) -> dict[tuple[str, str], str]:
    """The split of each unit (a group, or a note without one)."""
    total = sum(classes.values(), Counter[_Class]())
    rank = {one: place for place, one in enumerate(sorted(total, key=lambda c: (total[c], stable_hash(*c))))}
    rarest = {unit: min(of_unit, key=rank.__getitem__) for unit, of_unit in classes.items()}
    shares_S = np.array([1 - settings.dev - settings.test, settings.dev, settings.test])
    lacking = {one: n * shares_S for one, n in total.items()}  # rows that each split should still get
    notes_lacking_S = sum(sizes.values()) * shares_S
    split_of: dict[tuple[str, str], str] = {}
    for unit in sorted(classes, key=lambda u: (rank[rarest[u]], -sizes[u], stable_hash("split", settings.seed, *u))):
        lacks_S = np.where(shares_S > 0, lacking[rarest[unit]], -np.inf)
        best_S = np.where(np.isclose(lacks_S, lacks_S.max()), notes_lacking_S, -np.inf)
        place = int(best_S.argmax())
        split_of[unit] = SPLITS[place]
        notes_lacking_S[place] -= sizes[unit]
        for one, n in classes[unit].items():
            lacking[one][place] -= n
    return split_of
