"""Baselines without fine-tuning: logistic regression on TF-IDF or on frozen embeddings.

TF-IDF is a gate: a decoder that is more than .05 AUC behind it has not learned to read the note (docs/method.md,
section 11.5). Frozen embeddings show what fine-tuning the backbone adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.evaluation.heads import LEAST_PROBABILITY, answers_of, choose_layer, labels_by_task, log_probabilities
from raypipe.notes.tasks import Task


def tfidf_logistic(
    notes: pa.Table, labels: pa.Table, tasks: Sequence[Task], idf_texts: Iterable[str] = (), split: str = "test"
) -> pa.Table:
    """`rows.PREDICTIONS` of a logistic regression per task on the TF-IDF of 1-2 word grams, scores log-probabilities.

    `notes` (`rows.NOTES`) and `labels` (`rows.LABELS`): trained on the split "train", scored on `split`. The IDF is
    fitted on `idf_texts` (unlabelled notes) and on the training notes. Labels are weighted by inverse frequency, as
    macro F1 does. Notes without text or with an error are left out.
    """
    from sklearn.dummy import DummyClassifier  # here, because it is slow to import: see heads.py
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    note_of = {row["note_id"]: row for row in notes.to_pylist() if row["text"] and not row.get("error")}
    labels = labels.filter(pa.array([note_id in note_of for note_id in labels["note_id"].to_pylist()], pa.bool_()))
    in_training = set(labels.filter(pc.equal(labels["split"], "train"))["note_id"].to_pylist())
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([*idf_texts, *(note_of[note_id]["text"] for note_id in sorted(in_training))])
    row_of = {note_id: i for i, note_id in enumerate(note_of)}
    features = vectorizer.transform(note["text"] for note in note_of.values())
    labelled, out = labels_by_task(labels), []
    for task in tasks:
        train, scored = labelled[task.id, "train"], labelled[task.id, split]
        if not scored:
            continue
        scores_NC = np.full((len(scored), len(task.options)), np.log(LEAST_PROBABILITY))
        if train:
            learn = [row["label"] for row in train]
            several = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
            model = several if len(set(learn)) > 1 else DummyClassifier(strategy="prior")
            model.fit(features[[row_of[row["note_id"]] for row in train]], learn)
            scores_NC = log_probabilities(model, features[[row_of[row["note_id"]] for row in scored]], task.options)
        for row, scores_C in zip(scored, scores_NC, strict=True):
            names = task.id, row["note_id"], note_of[row["note_id"]]["group_id"], row["label"]
            out.append(rows.prediction(*names, task.options[int(scores_C.argmax())], scores_C.tolist()))
    return rows.table(out, rows.PREDICTIONS)


def best_of_states(probed: pa.Table) -> pa.Table:
    """`rows.PREDICTIONS` of a logistic regression per task on frozen states, from the rows.PROBED of the backbone.

    Cross-validation within the training notes chooses one layer and pooling for all tasks (mean macro F1); where no
    task has labels enough, the last of `probed`.
    """
    best = choose_layer(probed)
    if best is None:
        last = probed.slice(len(probed) - 1).to_pylist()[0]
        best = last["layer"], last["pooling"]
    return answers_of(probed, *best)
