"""The control task of probing: labels that only learning by heart can predict (Hewitt & Liang 2019, 1909.03368).

Their control labels depend on the type of a word. For documents we take the first content word of the note, which
recurs between notes and says little. The label is drawn from the distribution of the task's training labels, seeded by
(seed, task, word). docs/method.md, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from raypipe.hashing import generator
from raypipe.masking.stopwords import STOP_WORDS
from raypipe.notes.tasks import Task
from raypipe.words import word_spans


def content_word(text: str) -> str | None:
    """The first word that holds a letter and is no function word, in lower case; None if there is none."""
    for start, end in word_spans(text).tolist():
        word = text[start:end].casefold()
        if word not in STOP_WORDS and any(character.isalpha() for character in word):
            return word
    return None


def control_labels(
    labels: pa.Table, word_of: Mapping[str, str | None], tasks: Sequence[Task], split: str, seed: int = 0
) -> dict[tuple[str, str], str]:
    """(task_id, note_id) -> control label of the training notes, and of the notes of `split` whose word recurs there.

    `labels`: rows.LABELS. `word_of`: note id -> `content_word`. A note of `split` whose word no training note has
    gets none: nothing could have taught it.
    """
    out: dict[tuple[str, str], str] = {}
    in_use = [row for row in labels.to_pylist() if row["split"] in ("train", split) and word_of.get(row["note_id"])]
    for task in tasks:
        own = [row for row in in_use if row["task_id"] == task.id]
        train = [row for row in own if row["split"] == "train"]
        counts = np.asarray([sum(row["label"] == option for row in train) for option in task.options])
        if not counts.sum():
            continue
        words = {str(word_of[row["note_id"]]) for row in train}
        share_C = counts / counts.sum()
        draw = {
            word: task.options[int(generator("control", seed, task.id, word).choice(len(share_C), p=share_C))]
            for word in words
        }
        out |= {
            (task.id, row["note_id"]): draw[str(word_of[row["note_id"]])]
            for row in own
            if word_of[row["note_id"]] in draw
        }
    return out
