"""The three tables of a run: tasks, the labels in use, and notes. Everything about them is settled before Ray starts.

Labelled notes are few by the premise of the method, so they are copied once, with their labels, into the run directory;
the unlabelled notes stay where they are and are streamed.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from raypipe import rows
from raypipe.hashing import fingerprint, stable_hash
from raypipe.notes import storage, synthetic
from raypipe.notes.deciding import is_annotated, read_deciding
from raypipe.notes.files import iter_notes
from raypipe.notes.labels import for_self_supervision, read_labels
from raypipe.notes.leakage import Guard, is_of_other_part
from raypipe.notes.tasks import Task
from raypipe.runs.check import check
from raypipe.runs.folder import Step, settings_of
from raypipe.settings import config

# Characters of text that a new tokenizer is trained on.
TOKENIZER_SAMPLE = 50_000_000


@dataclass
class Corpus:
    """Tasks, labels and notes of a run."""

    folder: Path
    settings: config.Data  # as they were asked for
    data: config.Data  # with the generated files filled in
    tasks: list[Task]
    labels: pa.Table  # rows.LABELS in use
    listing: dict[str, Any]  # the input files, for fingerprints
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
    def deciding_path(self) -> Path:
        """`rows.DECIDING`: planted words of a generated corpus, or annotators' spans; else there is no such file."""
        return self.folder / "deciding.parquet"

    @property
    def has_dev(self) -> bool:
        """Are there labels for validation?"""
        return bool(pc.any(pc.equal(self.labels["split"], "dev")).as_py())

    @property
    def labels_per_task(self) -> int:
        """Training labels in use, the median over tasks."""
        train = self.labels.filter(pc.equal(self.labels["split"], "train"))
        return int(median(pc.value_counts(train["task_id"]).field("counts").to_pylist()))

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
        """The labels before any limit: a test note that this run does not score is still no note to learn from."""
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

    def labelled(self, split: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
        """Notes of a split and their labels by task, sorted by id."""
        labels: dict[str, dict[str, str]] = defaultdict(dict)
        for label in self.labels.filter(pc.equal(self.labels["split"], split)).to_pylist():
            labels[label["note_id"]][label["task_id"]] = label["label"]
        notes = pq.read_table(self.labelled_path, filters=pc.is_in(pc.field("note_id"), pa.array(labels, pa.string())))
        for note in notes.sort_by("note_id").to_pylist():
            yield note, labels[note["note_id"]]

    def texts(self, pretrains: bool) -> Iterator[str]:
        """Texts for pretraining (a tokenizer), or else for self-supervision; held-out notes do not count."""
        guard, seen, share = self.guard, 0, self.data.pretraining_share
        for table in iter_notes(self.data.for_pretraining if pretrains else self.data):
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


def collect(settings: config.Config, folder: Path, base: Corpus | None = None) -> Corpus:
    """Generate the demo's corpus if that is the source; check everything; copy the labelled notes.

    `base`: a corpus of the same notes; what is the same is not made again.
    Raises `InputError` with every problem of config, tasks, labels, notes and model.
    """
    if base is not None and base.settings == settings.data:
        check(settings, with_data=False)
        return base
    folder.mkdir(parents=True, exist_ok=True)
    checked, data = check(settings), settings.data
    listing: dict[str, Any] = _models(settings)
    if data.source == "synthetic":
        Step(folder, settings_of("corpus", settings, listing))  # before anything is written
        generated = base is not None and base.settings.synthetic == data.synthetic
        data = _generate(data, base.folder if generated and base else folder)
        checked = check(settings.model_copy(update={"data": data}))
    else:
        listing |= _listing(data, checked.tasks)
    step = Step(folder, settings_of("corpus", settings, listing))
    corpus = Corpus(folder, settings.data, data, checked.tasks, checked.labels, listing)
    if not step.done:
        _copy_labelled(corpus)
        if data.notes and settings.data.source == "synthetic":
            shutil.copyfile(Path(data.notes).with_name("generated_deciding.parquet"), corpus.deciding_path)
        if is_annotated(data, corpus.tasks):
            pq.write_table(read_deciding(data, corpus.tasks), corpus.deciding_path, compression="zstd")
        used = pq.read_metadata(corpus.labels_path).num_rows
        unreadable = len(checked.labels) - used
        step.finish(tasks=len(corpus.tasks), labels=used, labels_of_unreadable_notes=unreadable, notes=checked.n_notes)
    corpus.labels, corpus.facts = pq.read_table(corpus.labels_path), step.manifest
    return corpus


def _generate(data: config.Data, folder: Path) -> config.Data:
    """Write the generated tables once; point the data section at them."""
    if not (folder / "tasks.yaml").exists():
        made = synthetic.generate(**data.synthetic.model_dump())
        for name in ("notes", "labels", "deciding", "pretraining"):
            pq.write_table(getattr(made, name), folder / f"generated_{name}.parquet")
        (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": made.tasks}, allow_unicode=True, sort_keys=False))
    return data.model_copy(
        update={
            "source": "files",
            "notes": str(folder / "generated_notes.parquet"),
            "labels": str(folder / "generated_labels.parquet"),
            "tasks": str(folder / "tasks.yaml"),
            "pretraining": str(folder / "generated_pretraining.parquet"),
            "columns": data.columns.model_copy(update={"group_id": "group_id"}),
        }
    )


def _listing(data: config.Data, tasks: list[Task]) -> dict[str, Any]:
    """Name, size and time of every input file; tasks by content, because they may come from several files."""
    uris = {name: getattr(data, name) for name in ("notes", "labels", "pretraining")}
    files = {name: storage.listing(uri, f"data.{name}") for name, uri in uris.items() if uri}
    return files | {"tasks": fingerprint([asdict(task) for task in tasks])}


def _models(settings: config.Config) -> dict[str, Any]:
    """The same of models in local folders: weights may change under the same name. Ids of a hub name a commit."""
    of_section = {
        "model": [settings.model.path, settings.model.adapter],
        "statistics": [settings.statistics.encoder],
    }
    return {
        section: {path: storage.listing(path, section) for path in paths if path and Path(path).is_dir()}
        for section, paths in of_section.items()
    }


def _copy_labelled(corpus: Corpus) -> None:
    """One streaming pass over all notes. Labels of notes that cannot be read are left out, for all arms alike."""
    wanted = pa.array(sorted(set(corpus.labels["note_id"].to_pylist())), pa.string())
    with pq.ParquetWriter(corpus.labelled_path, rows.NOTES, compression="zstd") as writer:
        for table in iter_notes(corpus.data, rows.NOTES.names):
            is_usable = pc.and_(pc.is_in(table["note_id"], wanted), pc.is_null(table["error"]))
            writer.write_table(table.filter(is_usable))
    readable = pq.read_table(corpus.labelled_path, columns=["note_id"])["note_id"]
    pq.write_table(corpus.labels.filter(pc.is_in(corpus.labels["note_id"], readable)), corpus.labels_path)
