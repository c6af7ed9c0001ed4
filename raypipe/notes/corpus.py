"""The three tables of a run: tasks, the labels in use, and notes (made by runs/collect.py).

Labelled notes are few by the premise of the method, so they are copied once, with their labels, into the run directory;
the unlabelled notes stay where they are and are streamed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.hashing import stable_hash
from raypipe.notes.files import iter_notes
from raypipe.notes.labels import for_self_supervision, read_labels
from raypipe.notes.leakage import Guard, is_of_other_part
from raypipe.notes.reading import of_pretraining
from raypipe.notes.tasks import Task
from raypipe.settings import config

# Characters of text that a new tokenizer is trained on.
TOKENIZER_SAMPLE = 50_000_000


@dataclass
class Corpus:
    """Tasks, labels and notes of a run."""

    folder: Path
    data: config.Data  # with the files of generated notes filled in
    tasks: list[Task]
    labels: pa.Table  # rows.LABELS in use
    facts: dict[str, Any] = field(default_factory=dict)  # counts, for the manifest

    @property
    def labels_path(self) -> Path:
        """rows.LABELS in use, as Parquet."""
        return self.folder / "labels.parquet"

    @property
    def labelled_path(self) -> Path:
        """rows.NOTES of the notes with labels, as Parquet."""
        return self.folder / "labelled.parquet"

    @property
    def split_path(self) -> Path:
        """The split that was made here, of every labelled note; no such file if the labels came with one."""
        return self.folder / "split.parquet"

    @property
    def deciding_path(self) -> Path:
        """`rows.DECIDING`: planted words of a generated corpus, or annotators' spans; else there is no such file."""
        return self.folder / "deciding.parquet"

    @property
    def has_dev(self) -> bool:
        """Are there labels for validation?"""
        return self.labels_of("dev").num_rows > 0

    @property
    def labels_per_task(self) -> int:
        """Training labels in use, the median over tasks."""
        return int(median(pc.value_counts(self.labels_of("train")["task_id"]).field("counts").to_pylist()))

    @cached_property
    def guard(self) -> Guard | None:
        """Keeps notes of validation and test patients, and their copies, out of self-supervision."""
        if self.data.transductive:
            return None
        in_use = {note["note_id"]: note for split in ("dev", "test") for note, _ in self.labelled(split)}
        ids = pc.unique(self.all_labels.filter(pc.not_equal(self.all_labels["split"], "train"))["note_id"])
        others = [
            note | {"text": None}
            for table in iter_notes(self.data, ["note_id", "group_id"])
            for note in table.filter(pc.is_in(table["note_id"], ids)).to_pylist()
            if note["note_id"] not in in_use
        ]
        return Guard.fit([*in_use.values(), *others])

    @cached_property
    def all_labels(self) -> pa.Table:
        """The labels before `max_test` and the like: test notes that this run does not score are held out, too."""
        return read_labels(self.data, self.tasks)

    @cached_property
    def last_hash(self) -> int | None:
        """The largest hashed id among the `max_unlabelled` notes to learn from; None: no limit."""
        return None if self.data.max_unlabelled is None else self.last_hash_of(self.data, self.data.max_unlabelled)

    def last_hash_of(self, data: config.Data, n_notes: int) -> int:
        """The largest hashed id among the first `n_notes` notes of `data` to learn from."""
        notes = pa.concat_tables(iter_notes(data, ["note_id", "group_id"]))
        ids = for_self_supervision(notes, self.all_labels, data.model_copy(update={"max_unlabelled": n_notes}))
        return max((stable_hash(note_id) for note_id in ids.to_pylist()), default=0)

    @cached_property
    def pretraining(self) -> config.Data:
        """`data` as it reads the notes for pretraining."""
        return of_pretraining(self.data)

    def note_ids(self, pretrains: bool = False) -> pa.ChunkedArray:
        """The ids of all notes, or of those for pretraining, read again."""
        data = self.pretraining if pretrains else self.data
        return pa.concat_tables(iter_notes(data, ["note_id"]))["note_id"]

    def labels_of(self, split: str) -> pa.Table:
        """The labels in use of a split."""
        return self.labels.filter(pc.equal(self.labels["split"], split))

    def labelled(self, split: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
        """Notes of a split and their labels by task, sorted by id."""
        labels: dict[str, dict[str, str]] = defaultdict(dict)
        for label in self.labels_of(split).to_pylist():
            labels[label["note_id"]][label["task_id"]] = label["label"]
        notes = rows.read(self.labelled_path, filters=pc.is_in(pc.field("note_id"), pa.array(labels, pa.string())))
        for note in notes.sort_by("note_id").to_pylist():
            yield note, labels[note["note_id"]]

    def deciding_words(self) -> dict[tuple[str, str], list[tuple[int, int]]]:
        """(note id, task id) -> character spans that decide the label, where such words are known; else empty."""
        spans: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        if self.deciding_path.exists():
            for row in rows.read(self.deciding_path).to_pylist():
                spans[row["note_id"], row["task_id"]].append((row["start"], row["end"]))
        return spans

    def texts(self, pretrains: bool) -> Iterator[str]:
        """Texts for pretraining (a tokenizer), or else for self-supervision; held-out notes do not count."""
        guard, seen, share = self.guard, 0, self.data.pretraining_share
        for table in iter_notes(self.pretraining if pretrains else self.data):
            for note in table.to_pylist():
                if note["text"] is None:
                    continue
                if is_of_other_part(note["note_id"], note["group_id"], share, pretrains):
                    continue
                if guard is None or not guard.blocks(note["note_id"], note["group_id"], note["text"]):
                    yield note["text"]
                    seen += len(note["text"])
            if seen > TOKENIZER_SAMPLE:
                return
