"""The step `corpus`: all input is checked, the demo's notes are generated, labelled notes are copied into the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from raypipe import rows
from raypipe.errors import InputError
from raypipe.notes import synthetic
from raypipe.notes.corpus import Corpus
from raypipe.notes.deciding import is_annotated, read_deciding
from raypipe.notes.files import iter_notes
from raypipe.notes.split import SPLITS
from raypipe.notes.tasks import load_tasks
from raypipe.runs import inputs, integrity
from raypipe.runs.checking.check import check
from raypipe.runs.checking.check_report import CheckReport
from raypipe.runs.folder import State
from raypipe.settings.config import Data, LabelColumns

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run

GENERATED = ("notes", "labels", "deciding", "pretraining")  # tables of a generated corpus


def make_corpus(run: Run, folder: StepFolder, _: str = "") -> dict[str, Any]:
    """Write tasks, labels and labelled notes of a run; of generated notes, also the notes.

    Raises `InputError` with every problem of config, tasks, labels, notes and model, before anything is written.
    """
    settings = run.settings
    checked, data = check(settings), settings.data
    folder.open()
    if data.source == "synthetic":
        data = _generated(data, _generate(run, folder.path))
        checked = check(settings.model_copy(update={"data": data}))
    corpus = Corpus(folder.path, data, checked.tasks, checked.labels)
    _copy_labelled(corpus)
    if settings.data.source == "synthetic":
        shutil.copyfile(Path(str(data.notes)).with_name("generated_deciding.parquet"), corpus.deciding_path)
    elif is_annotated(data, corpus.tasks):
        rows.write(read_deciding(data, corpus.tasks), corpus.deciding_path)
    made = _write_split(corpus) if data.label_columns.split is None else {}
    return _facts(corpus, checked) | made | {integrity.INPUTS: inputs.digests(run.inputs, settings, run.recorded)}


def _write_split(corpus: Corpus) -> dict[str, Any]:
    """Which labelled note is in which split, before any limit; returns how it was made, for the manifest."""
    split = corpus.all_labels.select(["note_id", "split"]).group_by(["note_id", "split"]).aggregate([])
    split = split.select(["note_id", "split"]).sort_by("note_id")
    rows.write(split, corpus.split_path)
    sizes = rows.counts(split["split"])
    return {"split": {**corpus.data.split.model_dump(), "notes": {name: sizes.get(name, 0) for name in SPLITS}}}


def _facts(corpus: Corpus, checked: CheckReport) -> dict[str, Any]:
    used = pq.read_metadata(corpus.labels_path).num_rows
    unreadable = len(checked.labels) - used
    return {"tasks": len(corpus.tasks), "labels": used, "labels_of_unreadable_notes": unreadable,
            "notes": checked.n_notes}  # fmt: skip


def read_corpus(run: Run) -> Corpus:
    """What `make_corpus` left, whatever the settings then were: a report reads what there is. Never writes.

    Raises `InputError` if it is not there, or damaged.
    """
    folder, data = run.step("corpus"), run.settings.data
    if folder.state in (State.ABSENT, State.UNFINISHED):
        raise InputError([folder.problem("run")])
    output = folder.output
    if data.source == "synthetic":
        has_own = (output / "tasks.yaml").exists()
        data = _generated(data, output if has_own or run.base is None else _place_of_generated(run.base))
    corpus = Corpus(output, data, load_tasks(str(data.tasks), data.task_ids), rows.LABELS.empty_table())
    with integrity.blamed([folder.path]):
        corpus.labels, corpus.facts = rows.read(corpus.labels_path), folder.manifest
    return corpus


def _generate(run: Run, folder: Path) -> Path:
    """Where the generated tables lie: the base's folder if it has the same ones, else `folder`, written once."""
    data, base = run.settings.data, run.base
    if base is not None and base.settings.data.synthetic == data.synthetic:
        return _place_of_generated(base)
    if not (folder / "tasks.yaml").exists():
        tables = synthetic.generate(**data.synthetic.model_dump())
        for name in GENERATED:
            rows.write(getattr(tables, name), folder / f"generated_{name}.parquet")
        tasks = yaml.safe_dump({"tasks": tables.tasks}, allow_unicode=True, sort_keys=False)
        (folder / "tasks.yaml").write_text(tasks)
    return folder


def _place_of_generated(base: Run) -> Path:
    return Path(str(base.corpus.data.tasks)).parent


def _generated(data: Data, folder: Path) -> Data:
    """The data section with the generated tables of `folder` as its files."""
    return data.model_copy(
        update={
            "source": "files",
            "notes": str(folder / "generated_notes.parquet"),
            "labels": str(folder / "generated_labels.parquet"),
            "tasks": str(folder / "tasks.yaml"),
            "pretraining": str(folder / "generated_pretraining.parquet"),
            "columns": data.columns.model_copy(update={"group_id": "group_id"}),
            "label_columns": LabelColumns(),
        }
    )


def _copy_labelled(corpus: Corpus) -> None:
    """One streaming pass over all notes. Labels of notes that cannot be read are left out, for all arms alike."""
    labelled = pa.array(sorted(set(corpus.labels["note_id"].to_pylist())), pa.string())
    with pq.ParquetWriter(corpus.labelled_path, rows.NOTES, **rows.WRITE) as writer:
        for table in iter_notes(corpus.data, rows.NOTES.names):
            is_usable = pc.and_(pc.is_in(table["note_id"], labelled), pc.is_null(table["error"]))
            writer.write_table(table.filter(is_usable))
    readable = rows.read(corpus.labelled_path, columns=["note_id"])["note_id"]
    rows.write(corpus.labels.filter(pc.is_in(corpus.labels["note_id"], readable)), corpus.labels_path)
