"""The notes of a job: all of them counted in one stream, some of them read. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.hashing import stable_hash
from raypipe.notes.corpus import Corpus
from raypipe.notes.files import all_columns, iter_notes
from raypipe.notes.labels import for_self_supervision
from raypipe.notes.leakage import is_of_other_part
from raypipe.notes.split import SPLITS
from raypipe.runs.checking.check import check
from raypipe.runs.progress import silent
from raypipe.runs.run import Run
from raypipe.settings import config

SAMPLE = 512  # notes that are read of each kind
Note = dict[str, Any]  # a row of rows.NOTES


@dataclass(frozen=True)
class Drawn:
    """Some notes in a random order, and of how many they are drawn."""

    notes: list[Note]
    n_all: int  # that can be read
    n_unreadable: int = 0

    @property
    def scale(self) -> float:
        """All notes for each that was drawn."""
        return self.n_all / max(1, len(self.notes))

    def first(self, n: int) -> Drawn:
        """Fewer notes of the same."""
        return Drawn(self.notes[:n], self.n_all, self.n_unreadable)

    def as_if(self, n_all: int) -> Drawn:
        """The same notes as a sample of another number of them."""
        return Drawn(self.notes, n_all, 0)


@dataclass(frozen=True)
class Sample:
    """Notes of each kind. Near copies of test notes are among those to learn from: only the job compares texts."""

    corpus: Corpus
    n_notes: int  # in the files
    to_learn_from: Drawn
    pretraining: Drawn
    labelled: dict[str, Drawn]
    labels: dict[tuple[str, str], dict[str, str]]  # of the labelled notes that were drawn, by split and id: by task


def corpus_of(run: Run, scratch: Path, with_model: bool) -> Corpus:
    """Tasks, labels and notes as the step `corpus` would leave them, or has. Generated notes are written to `scratch`.

    Raises `InputError` with every problem of config, tasks, labels and notes; of the model, too, `with_model`.
    """
    if run.is_done("corpus"):
        return run.corpus
    report, data = check(run.settings, with_model=with_model), run.settings.data
    if data.source == "synthetic":
        fits = config.Prompt(max_tokens=16)
        generates = config.Config(runs=str(scratch), data=data, pretrain=config.Pretrain(), prompt=fits)
        return Run(generates, say=silent).open().corpus
    return Corpus(scratch, data, report.tasks, report.labels, {"notes": report.n_notes})


def draw(corpus: Corpus, pretrains: bool) -> Sample:
    """The sample of a corpus. `pretrains`: notes for pretraining, too."""
    data = corpus.data
    listed = _listed(data)
    learn = for_self_supervision(listed, corpus.all_labels, data)
    labelled = {
        split: sorted(pc.unique(corpus.labels_of(split)["note_id"]).to_pylist(), key=stable_hash) for split in SPLITS
    }
    kinds: dict[str, list[str]] = {"": learn.to_pylist(), **labelled}
    drawn = _read(data, kinds)
    labels: dict[tuple[str, str], dict[str, str]] = {}
    in_sample = pa.array({note["note_id"] for split in SPLITS for note in drawn[split].notes}, pa.string())
    for label in corpus.labels.filter(pc.is_in(corpus.labels["note_id"], in_sample)).to_pylist():
        labels.setdefault((label["split"], label["note_id"]), {})[label["task_id"]] = label["label"]
    texts = _pretraining(corpus) if pretrains else Drawn([], 0)
    return Sample(corpus, listed.num_rows, drawn[""], texts, {split: drawn[split] for split in SPLITS}, labels)


def _listed(data: config.Data) -> pa.Table:
    return pa.concat_tables(iter_notes(data, ["note_id", "group_id"]))


def _pretraining(corpus: Corpus) -> Drawn:
    """Notes that `pretrain` reads: not those of dev and test, nor the part that is learned from later."""
    data = corpus.pretraining
    own = data.model_copy(update={"pretraining_share": 0.0, "max_unlabelled": None})
    listed = _listed(data)
    pairs = dict(zip(listed["note_id"].to_pylist(), listed["group_id"].to_pylist(), strict=True))
    ids = [
        note_id
        for note_id in for_self_supervision(listed, corpus.all_labels, own).to_pylist()
        if not is_of_other_part(note_id, pairs[note_id], data.pretraining_share, pretrains=True)
    ]
    return _read(data, {"": ids})[""]


def _read(data: config.Data, kinds: dict[str, list[str]]) -> dict[str, Drawn]:
    """Of each kind (ids in random order) the first notes, and how many of all can be read: one pass over the texts."""
    columns = sorted({*rows.NOTES.names, *all_columns(data)})
    every = {kind: pa.array(ids, pa.string()) for kind, ids in kinds.items()}
    texts: dict[str, Note] = {}
    n_readable = dict.fromkeys(kinds, 0)
    chosen = pa.array({note_id for ids in kinds.values() for note_id in ids[:SAMPLE]}, pa.string())
    for table in iter_notes(data, columns):
        readable = table.filter(pc.is_null(table["error"]))
        for kind, ids in every.items():
            n_readable[kind] += pc.sum(pc.is_in(readable["note_id"], ids)).as_py() or 0
        texts |= {note["note_id"]: note for note in readable.filter(pc.is_in(readable["note_id"], chosen)).to_pylist()}
    return {
        kind: Drawn([texts[i] for i in ids[:SAMPLE] if i in texts], n_readable[kind], len(ids) - n_readable[kind])
        for kind, ids in kinds.items()
    }
