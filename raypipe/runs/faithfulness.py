"""The step of `raypipe faithfulness`: which method, target and layer to start from, on this scorer and these notes.

A few hundred questions on labelled dev notes, in this process, without Ray. It is a proxy: what counts is the arms'
macro F1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from raypipe.attribution.decoder import Decoder
from raypipe.attribution.scores import values_of
from raypipe.errors import InputError, Problem
from raypipe.evaluation.faithfulness import faithfulness_table
from raypipe.evaluation.variants import variants
from raypipe.hashing import stable_hash
from raypipe.models import loading
from raypipe.models.prompts import EncodedNote
from raypipe.records import write_json
from raypipe.runs.names import SCORER
from raypipe.stream.frequencies import token_idf

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run

SPLIT = "dev"
MEASURED = "measured.json"


def measure(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """Measure every variant of method, target and layer; measured.json holds the table."""
    settings, scorer, encoder = run.settings, loading.load(run.model(SCORER)), run.encoder()
    labelled = {note["note_id"]: (note["text"], labels) for note, labels in run.corpus.labelled(SPLIT)}
    labels = {note_id: labels for note_id, (_, labels) in labelled.items()}
    tasks_of = choose(labels, settings.faithfulness.questions, settings.seed)
    if not tasks_of:
        raise InputError([Problem("data.labels", f"no note of the split {SPLIT} has a label to measure with")])
    notes = [(note_id, labelled[note_id][0], task_ids) for note_id, task_ids in tasks_of.items()]
    idf_V = token_idf(run.corpus, encoder.tokenizer) if "tfidf" in settings.faithfulness.methods else None
    compared, refused = variants(scorer, settings.faithfulness, settings.attribution, idf_V)
    for what in refused:
        run.say(f"left out: {what}")
    table = faithfulness_table(
        scorer,
        encoder,
        notes,
        compared,
        deciding=run.corpus.deciding_words() or None,
        top_share=settings.faithfulness.top_share,
        n_bootstrap=settings.faithfulness.bootstrap,
        seed=settings.seed,
        idf_V=idf_V,
        say=run.say,
    )
    rows = [row | {"agreement": row["agreement"] and asdict(row["agreement"])} for row in table]
    accuracy = _accuracy(run, Decoder(scorer), [encoder.encode(*note) for note in notes], labels)
    n_questions = sum(map(len, tasks_of.values()))
    about = {"split": SPLIT, "questions": n_questions, "notes": len(notes), "scorer_accuracy": accuracy}
    about["one_answer"] = by_one_answer(labels, tasks_of)
    write_json(folder.path / MEASURED, {**about, "rows": rows})
    return {"variants": len(rows), "questions": n_questions}


def choose(labels: Mapping[str, Mapping[str, str]], n_questions: int, seed: int) -> dict[str, list[str]]:
    """Tasks to ask of each note (note id -> task ids): tasks and labels in turn, so that rare labels count as much."""
    pairs_of: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)  # task and label -> note and task
    pairs = [(note_id, task_id) for note_id, of_note in labels.items() for task_id in of_note]
    for note_id, task_id in sorted(pairs, key=lambda pair: stable_hash(seed, *pair)):
        pairs_of[task_id, labels[note_id][task_id]].append((note_id, task_id))
    in_turn = (pair for pair in chain.from_iterable(zip_longest(*(pairs_of[c] for c in sorted(pairs_of)))) if pair)
    tasks_of: dict[str, list[str]] = defaultdict(list)
    for _, (note_id, task_id) in zip(range(n_questions), in_turn, strict=False):
        tasks_of[note_id].append(task_id)
    return dict(tasks_of)


def by_one_answer(labels: Mapping[str, Mapping[str, str]], tasks_of: Mapping[str, Sequence[str]]) -> float:
    """Share of the questions that are answered right if each task gets the commonest of its answers, whatever the note.

    Labels are asked in turn, but rare ones run out, and then nearly all of a task's questions may have one answer.
    """
    asked = Counter((task_id, labels[note_id][task_id]) for note_id, ids in tasks_of.items() for task_id in ids)
    commonest = {
        task_id: n for (task_id, _), n in sorted(asked.items(), key=lambda pair: pair[1])
    }  # the last one stays
    return sum(commonest.values()) / asked.total()


def _accuracy(
    run: Run, decoder: Decoder, notes: Sequence[EncodedNote], labels: Mapping[str, Mapping[str, str]]
) -> float:
    """Share of the questions that the scorer answers right."""
    options = {task.id: task.options for task in run.corpus.tasks}
    of_notes = values_of(decoder, notes, "label_margin", run.settings.attribution.batch_tokens)
    right = [
        options[question.task_id][best] == labels[note.note_id][question.task_id]
        for note, values in zip(notes, of_notes, strict=True)
        for question, best in zip(note.questions, values.chosen_Q2[:, 0], strict=True)
    ]
    return float(np.mean(right))
