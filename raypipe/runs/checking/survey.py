"""What stops no run, but may spoil it: notes that are cut, test notes that training has seen, answers that look alike,
identifiers of patients.

For `raypipe check`. Looks at samples of the notes, and holds counts alone: no text leaves this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.hashing import stable_hash
from raypipe.notes.files import iter_notes
from raypipe.notes.identifiers import found
from raypipe.notes.leakage import Guard
from raypipe.notes.reading import TEXT_ROWS, tables
from raypipe.notes.tasks import Task
from raypipe.runs.checking.folded import doubts_of_tasks
from raypipe.settings.config import Config, Data
from raypipe.training import schedule

if TYPE_CHECKING:
    from raypipe.models.prompts import PromptEncoder

SAMPLE = 8 * TEXT_ROWS  # notes whose tokens are counted
COMPARED = 1000  # labelled notes of training, and of dev and test, that are compared with each other
MANY_CUT = 0.2  # share of the notes from which on cutting is a warning
FEW_STEPS = 100  # a decoder that had learned its tasks after 104 to 304 steps had not after 13 to 38 (docs/experiments)


@dataclass
class Survey:
    """Lines to print, and warnings."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def survey(config: Config, tasks: Sequence[Task], labels: pa.Table, encoder: PromptEncoder | None) -> Survey:
    """Look at the notes of a config whose tables can be read. `encoder`: None if there is no tokenizer yet."""
    out = Survey()
    texts = list(_texts(config.data))
    if encoder is None:
        sizes = [len(text) for text in texts]
        what = f"median {int(median(sizes)):,} characters, longest {max(sizes):,}" if sizes else "none can be read"
        out.lines.append(f"notes: {what}; tokens are counted once `raypipe pretrain` has made the tokenizer")
    elif texts and tasks:
        _lengths(config, encoder, texts, out)
        _answers(tasks, encoder, out)
    _questions(config, tasks, out)
    _steps(config, labels, out)
    _identifiers(config.data, texts, out)
    if config.data.columns.group_id is None:
        out.warnings.append(
            "data.columns.group_id is not set: notes of one patient may be learned from and tested, or be in two splits"
        )
    if labels.num_rows and not config.data.transductive:
        _near_copies(config.data, labels, out)
    return out


def _texts(data: Data) -> Iterator[str]:
    """The first notes that can be used."""
    some = tables(data, ["note_id", "text", "error"])
    texts = (text for table in some for text in table["text"].to_pylist() if text is not None)
    return islice(texts, SAMPLE)


def _lengths(config: Config, encoder: PromptEncoder, texts: Sequence[str], out: Survey) -> None:
    """How many notes do not fit beside the longest question, and how much of them is not read."""
    longest = max(len(q.suffix_ids) + max(map(len, q.option_ids)) for q in encoder.questions.values()) + 1
    room = config.prompt.max_tokens - len(encoder.head_ids) - longest
    sizes = [len(encoder.note_ids(text)[0]) for text in texts]
    out.lines.append(
        f"tokens of a note: median {int(median(sizes)):,}, longest {max(sizes):,} of the first {len(sizes):,}; "
        f"{max(room, 0):,} fit beside the longest question"
    )
    cut = [size - room for size in sizes if size > room]
    if cut:
        lost = 100 * sum(cut) / sum(sizes)
        keep = "end" if config.prompt.keep == "head" else "beginning"
        what = f"{len(cut):,} of {len(sizes):,} notes are cut at their {keep}, {lost:.0f} % of all tokens"
        is_much = len(cut) > MANY_CUT * len(sizes)
        (out.warnings if is_much else out.lines).append(f"prompt.max_tokens is {config.prompt.max_tokens}: {what}")


def _answers(tasks: Sequence[Task], encoder: PromptEncoder, out: Survey) -> None:
    """Tokens of the answers, and those that the tokenizer cannot write as they are."""
    ids = {task.id: encoder.questions[task.id].option_ids for task in tasks}
    sizes = [len(option) for options in ids.values() for option in options]
    out.lines.append(f"tokens of an answer: {min(sizes)} to {max(sizes)}")
    begin = [(id, "two answers begin with the same token") for id, options in ids.items() if _share_first(options)]
    unknown = encoder.tokenizer.unk_token_id
    partly = [
        (id, "an answer holds characters that the tokenizer does not know")
        for id, options in ids.items()
        if unknown is not None and any(unknown in option for option in options)
    ]
    out.lines += doubts_of_tasks(begin)
    out.warnings += doubts_of_tasks(partly)


def _share_first(options: Sequence[Sequence[int]]) -> bool:
    return len({option[0] for option in options if option}) < len(options)


def _questions(config: Config, tasks: Sequence[Task], out: Survey) -> None:
    """Questions that end twice."""
    questions = {task.id: config.prompt.question.replace("{question}", task.question) for task in tasks}
    doubled = [(id, "the question ends in `??`, once from prompt.question") for id, q in questions.items() if "??" in q]
    out.warnings += doubts_of_tasks(doubled)


def _steps(config: Config, labels: pa.Table, out: Survey) -> None:
    """Fine-tuning that ends before a pre-trained model has begun to answer."""
    n_notes = pc.count_distinct(labels.filter(pc.equal(labels["split"], "train"))["note_id"]).as_py()
    if not n_notes or config.pretrain is not None or not any(arm.finetune for arm in config.arms.values()):
        return
    n_steps = len(schedule.steps(np.zeros(n_notes, np.int64), np.zeros(n_notes, np.int16), config.finetune))
    if n_steps < FEW_STEPS:
        out.warnings.append(
            f"finetune takes {n_steps} optimiser steps on {n_notes:,} labelled notes, and with fewer than {FEW_STEPS} "
            "students hardly begin to answer: raise finetune.epochs, or lower finetune.batch_rows"
        )


def _identifiers(data: Data, texts: Sequence[str], out: Survey) -> None:
    """Likely identifiers that the model will read, by kind, and how often each placeholder stands in these notes."""
    of_notes = [[kind for kind, _, _ in found(text)] for text in texts]
    counts, n_notes = Counter(chain.from_iterable(of_notes)), sum(map(bool, of_notes))
    if counts:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(counts.items()))
        out.warnings.append(
            f"likely identifiers in {n_notes:,} of the first {len(texts):,} notes ({kinds}): data.placeholders "
            "replaces them"
        )
    if data.placeholders:
        counted = (f"{mark} {sum(text.count(mark) for text in texts):,}" for mark in data.placeholders.values())
        out.lines.append(f"placeholders in the first {len(texts):,} notes: {', '.join(dict.fromkeys(counted))}")


def _near_copies(data: Data, labels: pa.Table, out: Survey) -> None:
    """Training notes that say (nearly) the same as a dev or test note: what is measured is then partly memory."""
    is_train = pc.equal(labels["split"], "train")
    train = set(_first(labels.filter(is_train)))
    held_out = set(_first(labels.filter(pc.invert(is_train)))) - train
    notes: dict[str, dict[str, Any]] = {}
    for table in iter_notes(data, ["note_id", "group_id", "text", "error"]):
        some = table.filter(pc.is_in(table["note_id"], pa.array(sorted(train | held_out), pa.string())))
        notes |= {note["note_id"]: note for note in some.to_pylist() if note["text"] is not None}
        if len(notes) == len(train) + len(held_out):
            break
    guard = Guard.fit(notes[id] for id in sorted(held_out & notes.keys()))
    copies = sum(guard.blocks("", None, notes[id]["text"]) for id in sorted(train & notes.keys()))
    if copies:
        out.warnings.append(
            f"{copies:,} of {len(train):,} training notes say nearly the same as one of {len(held_out):,} dev and test "
            "notes: give copies one group (data.columns.group_id), or leave them out"
        )


def _first(labels: pa.Table) -> list[str]:
    """Ids of `COMPARED` notes, the first by hash."""
    return sorted(pc.unique(labels["note_id"]).to_pylist(), key=stable_hash)[:COMPARED]
