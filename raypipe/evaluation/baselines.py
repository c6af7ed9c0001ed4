"""Baselines without fine-tuning: logistic regression on TF-IDF or on frozen embeddings, and the most frequent label.

TF-IDF is a gate: a decoder that is more than .05 AUC behind it has not learned to read the note (docs/method.md,
section 11.5). The most frequent label is the floor: its macro F1 is about .47 on rare positives, so .48 does not
mean that anything was learned. Frozen embeddings show what fine-tuning the backbone adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from raypipe import rows
from raypipe.evaluation.heads import PooledStates, answers_of, choose_layer, fit_probe
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.words import F64

# note ids and labels to learn from, note ids to score, the task -> log-probabilities [N, C]
Scorer = Callable[[Sequence[str], Sequence[str], Sequence[str], Task], F64]
LEAST_PROBABILITY = 1e-9  # probability of an option that no training note has


def tfidf_logistic(
    notes: pa.Table, labels: pa.Table, tasks: Sequence[Task], idf_texts: Iterable[str] = (), split: str = "test"
) -> pa.Table:
    """`rows.PREDICTIONS` of a logistic regression per task on the TF-IDF of 1-2 word grams, scores log-probabilities.

    `notes` (`rows.NOTES`) and `labels` (`rows.LABELS`): trained on the split "train", scored on `split`. The IDF is
    fitted on `idf_texts` (unlabelled notes) and on the training notes. Labels are weighted by inverse frequency, as
    macro F1 does. Notes without text or with an error are left out.
    """
    text_of = {row["note_id"]: row["text"] for row in notes.to_pylist() if row["text"] and not row.get("error")}
    labels = labels.filter(pa.array([note_id in text_of for note_id in labels["note_id"].to_pylist()], pa.bool_()))
    in_training = set(labels.filter(pc.equal(labels["split"], "train"))["note_id"].to_pylist())
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([*idf_texts, *(text_of[note_id] for note_id in sorted(in_training))])
    row_of = {note_id: i for i, note_id in enumerate(text_of)}
    features = vectorizer.transform(text_of.values())

    def score(learn_from: Sequence[str], learn: Sequence[str], note_ids: Sequence[str], task: Task) -> F64:
        if len(set(learn)) < 2:
            return _log_frequencies(learn, task, len(note_ids))
        model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
        model.fit(features[[row_of[note_id] for note_id in learn_from]], learn)
        probability_NC = np.full((len(note_ids), len(task.options)), LEAST_PROBABILITY)
        columns = [task.options.index(label) for label in model.classes_]
        probability_NC[:, columns] = model.predict_proba(features[[row_of[note_id] for note_id in note_ids]])
        return np.log(np.maximum(probability_NC, LEAST_PROBABILITY))

    return _predictions(notes, labels, tasks, split, score)


def embeddings_logistic(
    states: Iterable[PooledStates],
    labels: pa.Table,
    tasks: Sequence[Task],
    split: str = "test",
    group_of: Mapping[str, str | None] | None = None,
    settings: config.Probe | None = None,
    seed: int = 0,
) -> pa.Table:
    """`rows.PREDICTIONS` of a logistic regression per task on frozen states of one layer and pooling.

    `states`: the layers and poolings to choose from. Cross-validation within the training notes chooses one for all
    tasks (mean macro F1), and the penalty of each task; where no task has labels enough, the last of `states`.
    """
    settings = settings or config.Probe(control=False)
    probed = [fit_probe(pooled, labels, group_of or {}, tasks, split, settings, seed=seed) for pooled in states]
    return best_of_states(pa.concat_tables(probed))


def best_of_states(probed: pa.Table) -> pa.Table:
    """The same, from the rows.PROBED of a finished probe of the frozen backbone."""
    best = choose_layer(probed)
    if best is None:
        last = probed.slice(len(probed) - 1).to_pylist()[0]
        best = last["layer"], last["pooling"]
    return answers_of(probed, *best)


def majority(notes: pa.Table, labels: pa.Table, tasks: Sequence[Task], split: str = "test") -> pa.Table:
    """`rows.PREDICTIONS` of always answering the most frequent training label; scores are log label frequencies."""
    return _predictions(
        notes, labels, tasks, split, lambda _, learn, note_ids, task: _log_frequencies(learn, task, len(note_ids))
    )


def _log_frequencies(learn: Sequence[str], task: Task, n: int) -> F64:
    share_C = np.asarray([learn.count(option) for option in task.options]) / max(len(learn), 1)
    return np.tile(np.log(np.maximum(share_C, LEAST_PROBABILITY)), (n, 1))


def _predictions(notes: pa.Table, labels: pa.Table, tasks: Sequence[Task], split: str, score: Scorer) -> pa.Table:
    group_of = dict(zip(notes["note_id"].to_pylist(), notes["group_id"].to_pylist(), strict=True))
    by_task: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in labels.to_pylist():
        by_task.setdefault(row["task_id"], {}).setdefault(row["split"], []).append(row)
    out = []
    for task in tasks:
        train, test = (by_task.get(task.id, {}).get(name, []) for name in ("train", split))
        if not test:
            continue
        scores_NC = score(
            [r["note_id"] for r in train], [r["label"] for r in train], [r["note_id"] for r in test], task
        )
        for row, scores_C in zip(test, scores_NC, strict=True):
            best = task.options[int(scores_C.argmax())]
            names = task.id, row["note_id"], group_of.get(row["note_id"]), row["label"]
            out.append(rows.prediction(*names, best, scores_C.tolist()))
    return rows.table(out, rows.PREDICTIONS)
