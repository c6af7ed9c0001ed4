"""The cheap baselines on notes where the answer is one word."""

import numpy as np
import pyarrow.compute as pc
import pytest

from raypipe import rows
from raypipe.evaluation import baselines
from raypipe.evaluation.metrics import evaluate
from raypipe.notes.tasks import Task

FEVER = Task("fever", "binary", "fever", ("yes", "no"), ("sì", "no"))
COLOUR = Task("colour", "multiclass", "colour", ("red", "green", "blue", "black"), ("r", "g", "b", "n"))
FILLER = ["paziente", "vigile", "collaborante", "parametri", "nella", "norma", "segue", "terapia"]


def corpus(n=160):
    rng = np.random.default_rng(0)
    notes, labels = [], []
    for i in range(n):
        fever, colour = rng.random() < 0.3, str(rng.choice(COLOUR.options[:3]))
        words = [*rng.choice(FILLER, 5), "febbre" if fever else "apiressia", {"red": "rosso"}.get(colour, colour)]
        note_id = f"n{i}"
        notes.append({"note_id": note_id, "group_id": f"g{i // 2}", "text": " ".join(rng.permutation(words))})
        split = "train" if i < n // 2 else "test"
        labels.append({"task_id": "fever", "note_id": note_id, "label": "yes" if fever else "no", "split": split})
        labels.append({"task_id": "colour", "note_id": note_id, "label": colour, "split": split})
    return rows.table(notes, rows.NOTES), rows.table(labels, rows.LABELS)


def test_tfidf_learns_a_deciding_word():
    notes, labels = corpus()
    table = baselines.tfidf_logistic(notes, labels, [FEVER, COLOUR], idf_texts=["febbre e tosse"])
    assert table.schema == rows.PREDICTIONS
    assert table.num_rows == 2 * 80
    result = evaluate(table, [FEVER, COLOUR])
    assert [t.auc for t in result.tasks] == pytest.approx([1.0, 1.0], abs=0.01)
    assert result.macro_f1 > 0.98


def test_scores_are_log_probabilities_in_the_order_of_the_options():
    notes, labels = corpus()
    table = baselines.tfidf_logistic(notes, labels, [COLOUR])
    scores = np.asarray(table["scores"].to_pylist())
    assert np.exp(scores).sum(axis=1) == pytest.approx(1, abs=1e-5)
    best = [COLOUR.options[i] for i in scores.argmax(axis=1)]
    assert best == table["predicted"].to_pylist()
    assert scores[:, 3].max() == pytest.approx(np.log(baselines.LEAST_PROBABILITY))  # no training note is black
    assert table["group_id"].to_pylist()[:2] == ["g40", "g40"]


def test_test_labels_are_not_learned_from():
    notes, labels = corpus()
    swap = {"yes": "no", "no": "yes"}
    flipped = [
        {**r, "label": swap[r["label"]] if r["split"] == "test" else r["label"]}
        for r in labels.to_pylist()
        if r["task_id"] == "fever"
    ]
    result = evaluate(baselines.tfidf_logistic(notes, rows.table(flipped, rows.LABELS), [FEVER]), [FEVER])
    assert result.auc < 0.01


def test_a_note_is_scored_without_regard_to_the_other_test_notes():
    notes, labels = corpus()
    both = baselines.tfidf_logistic(notes, labels, [COLOUR])
    few = [r for r in labels.to_pylist() if r["split"] == "train" or r["note_id"] == "n90"]
    alone = baselines.tfidf_logistic(notes, rows.table(few, rows.LABELS), [COLOUR])
    in_both = [r["scores"] for r in both.to_pylist() if r["note_id"] == "n90"]
    assert in_both == alone["scores"].to_pylist()


def test_one_class_gives_a_constant_predictor():
    notes, labels = corpus()
    ones = [r for r in labels.to_pylist() if r["task_id"] == "fever" and (r["split"] == "test" or r["label"] == "no")]
    table = baselines.tfidf_logistic(notes, rows.table(ones, rows.LABELS), [FEVER])
    assert set(table["predicted"].to_pylist()) == {"no"}
    assert evaluate(table, [FEVER]).auc == 0.5


def test_a_task_without_training_labels_is_scored_all_the_same():
    notes, labels = corpus()
    table = baselines.tfidf_logistic(notes, labels.filter(pc.equal(labels["split"], "test")), [FEVER], ["febbre"])
    assert table.num_rows == 80
    assert evaluate(table, [FEVER]).auc == 0.5


def test_notes_with_an_error_are_left_out():
    notes, labels = corpus()
    broken = [{**r, "text": None, "error": "E_NULL"} if r["note_id"] == "n100" else r for r in notes.to_pylist()]
    table = baselines.tfidf_logistic(rows.table(broken, rows.NOTES), labels, [FEVER])
    assert table.num_rows == 79
    assert "n100" not in table["note_id"].to_pylist()
