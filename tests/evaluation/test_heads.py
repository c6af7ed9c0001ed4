"""Probes find what is in the states, and nothing that is only in the evaluation labels, the group, or by heart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe import rows
from raypipe.evaluation import heads
from raypipe.evaluation.baselines import best_of_states
from raypipe.evaluation.control import content_word, control_labels
from raypipe.evaluation.heads import PooledStates, answers_of, choose_layer, fit_probe
from raypipe.evaluation.layer_scores import best_layers, layer_scores, selectivity
from raypipe.evaluation.metrics import evaluate
from raypipe.notes.tasks import Task
from raypipe.settings import config

FEVER = Task("fever", "binary", "febbre", ("yes", "no"), ("sì", "no"))
PLACE = Task("place", "multiclass", "dove", ("a", "b", "c"), ("a", "b", "c"))
N, WIDTH = 160, 12
NOTES = [f"n{i:03d}" for i in range(N)]
GROUPS = {note_id: f"g{i // 2}" for i, note_id in enumerate(NOTES)}
QUICK = config.Probe(c=(0.01, 1.0), control=False)


def gold(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"fever": rng.choice(2, size=N, p=[0.3, 0.7]), "place": rng.choice(3, size=N)}


def labels(gold_of: Mapping[str, np.ndarray], tasks: tuple[Task, ...] = (FEVER, PLACE)) -> pa.Table:
    """Every second note is for training."""
    found = [
        {"task_id": t.id, "note_id": note_id, "label": t.options[gold_of[t.id][i]], "split": ("test", "train")[i % 2]}
        for t in tasks
        for i, note_id in enumerate(NOTES)
    ]
    return rows.table(found, rows.LABELS)


def states(signal: Mapping[str, np.ndarray], layer: int = 1, pooling: str = "last", seed: int = 0) -> PooledStates:
    """A vector for every note and task: noise, and the one-hot signal of the task, if it has one."""
    rng = np.random.default_rng([seed, layer])
    vectors, row_of = [], {}
    for task_id in ("fever", "place"):
        for i, note_id in enumerate(NOTES):
            row_of[task_id, note_id] = len(vectors)
            vector = rng.normal(size=WIDTH)
            if task_id in signal:
                vector[signal[task_id][i]] += 8
            vectors.append(vector)
    return PooledStates(layer, pooling, np.asarray(vectors, np.float32), row_of)


def run(
    pooled: PooledStates, gold_of: Mapping[str, np.ndarray], settings: config.Probe = QUICK, **kwargs: Any
) -> pa.Table:
    return fit_probe(pooled, labels(gold_of), GROUPS, [FEVER, PLACE], "test", settings, **kwargs)


@pytest.mark.parametrize("settings", [QUICK, config.Probe(head="mlp256", control=False)], ids=["logistic", "mlp256"])
def test_reads_what_is_there(settings: config.Probe) -> None:
    probed = run(states(gold()), gold(), settings)
    assert probed.schema.equals(rows.PROBED)
    assert evaluate(answers_of(probed, 1, "last"), [FEVER, PLACE]).macro_f1 > 0.97
    assert min(probed["inner_f1"].to_pylist()) > 0.9
    assert {None if c is None else round(c, 4) for c in probed["c"].to_pylist()} <= {None, 0.01, 1.0}
    assert (None in probed["c"].to_pylist()) == (settings.head == "mlp256")
    noise = run(states({}), gold(), settings)
    assert evaluate(answers_of(noise, 1, "last"), [FEVER, PLACE]).auc == pytest.approx(0.5, abs=0.12)


def test_evaluation_labels_teach_nothing() -> None:
    own, other = gold(), gold()
    for task_id, n in (("fever", 2), ("place", 3)):
        other[task_id][::2] = (other[task_id][::2] + 1) % n  # other labels for the test notes only
    first, second = (run(states(own), labels_of) for labels_of in (own, other))
    for column in ("predicted", "scores", "c", "inner_f1"):
        assert first[column].equals(second[column])


def test_groups_do_not_straddle_folds() -> None:
    """States that only name the patient look like knowledge, unless folds keep groups together."""
    rng = np.random.default_rng(0)
    group_of = {note_id: f"g{i // 8}" for i, note_id in enumerate(NOTES)}
    label_of_group = rng.permutation(np.arange(N // 8) % 2)
    named = np.repeat(10 * rng.normal(size=(N // 8, WIDTH)), 8, axis=0) + 0.1 * rng.normal(size=(N, WIDTH))
    fever = {"fever": np.repeat(label_of_group, 8)}
    table = labels(fever, (FEVER,))
    pooled = PooledStates(
        0, "mean", named.astype(np.float32), {("fever", note_id): i for i, note_id in enumerate(NOTES)}
    )
    settings = config.Probe(c=(10.0,), control=False)
    whole, torn = (
        fit_probe(pooled, table, of, [FEVER], "test", settings)["inner_f1"][0].as_py() for of in (group_of, {})
    )
    assert torn > 0.95
    assert whole < 0.75


def test_the_weakest_penalty_is_not_always_the_best() -> None:
    weak_signal = states({})
    for i, note_id in enumerate(NOTES):  # every dimension knows a little
        weak_signal.states_XD[weak_signal.row_of["fever", note_id]] += 0.25 * (1 - 2 * gold()["fever"][i])
    chosen = run(weak_signal, gold(), config.Probe(c=(1e-3, 1e2), control=False))
    assert chosen["c"][0].as_py() == pytest.approx(1e-3)
    assert run(states(gold()), gold(), config.Probe(c=(1e-6, 1.0), control=False))["c"][0].as_py() == 1.0


def test_more_dimensions_than_notes_is_the_same_problem_in_fewer() -> None:
    rng = np.random.default_rng(0)
    learn_ND, asked_ND, gold_N = rng.normal(size=(30, 90)), rng.normal(size=(8, 90)), rng.choice(["yes", "no"], size=30)
    found = []
    for rotate in (True, False):
        head = heads._Head(QUICK, FEVER, 0)
        head.c = 0.1
        learn, asked = heads._standardised(learn_ND, asked_ND, rotate)
        assert learn.shape[1] == (30 if rotate else 90)
        (model,) = head._fits(learn, gold_N, [0.1])
        found.append(model.predict_proba(asked))
    np.testing.assert_allclose(*found, atol=2e-3)


def test_constant_states_give_the_majority() -> None:
    """The last token at the embeddings is the same for all notes."""
    pooled = states({})
    pooled.states_XD[:] = 1.5
    probed = answers_of(run(pooled, gold()), 1, "last")
    learned = {t: gold()[t][1::2] for t in ("fever", "place")}
    floor = {t.id: t.options[np.bincount(learned[t.id]).argmax()] for t in (FEVER, PLACE)}
    assert probed["predicted"].to_pylist() == [floor[task_id] for task_id in probed["task_id"].to_pylist()]


def test_few_labels_and_missing_states() -> None:
    one_class = {**gold(), "fever": np.ones(N, int)}
    pooled = states(gold())
    row_of = {key: row for key, row in pooled.row_of.items() if key[1] not in ("n000", "n001")}
    probed = run(PooledStates(1, "last", pooled.states_XD, row_of), one_class)
    fever = [row for row in probed.to_pylist() if row["task_id"] == "fever"]
    assert {row["predicted"] for row in fever} == {"no", None}
    assert {row["inner_f1"] for row in fever} == {None}
    (missing,) = (row for row in fever if row["note_id"] == "n000")  # n001 is a training note
    assert (missing["predicted"], missing["scores"]) == (None, None)
    assert len(fever) == N // 2


def test_a_task_whose_training_notes_have_no_states_has_no_answers() -> None:
    pooled = states(gold())
    row_of = {(t, n): row for (t, n), row in pooled.row_of.items() if t == "place" or n in NOTES[::2]}
    probed = run(PooledStates(1, "last", pooled.states_XD, row_of), gold()).to_pylist()
    fever = [row for row in probed if row["task_id"] == "fever"]
    assert len(fever) == N // 2
    assert {row["predicted"] for row in fever} == {None}
    assert None not in {row["predicted"] for row in probed if row["task_id"] == "place"}


def test_layer_and_pooling_are_chosen_within_the_training_notes() -> None:
    """One layer is perfect on the training notes, the other on the test notes: only the first can be chosen."""
    own, n_train = gold(), np.arange(N) % 2 == 1
    rng = np.random.default_rng(1)
    shuffled = {t: rng.permutation(g) for t, g in own.items()}
    on_train = states({t: np.where(n_train, g, shuffled[t]) for t, g in own.items()}, layer=1)
    on_test = states({t: np.where(n_train, shuffled[t], g) for t, g in own.items()}, layer=2)
    probed = pa.concat_tables([run(on_test, own), run(on_train, own)])
    assert choose_layer(probed) == (1, "last")
    table = best_of_states(probed)
    assert table.schema.equals(rows.PREDICTIONS)
    assert table.equals(answers_of(probed, 1, "last"))


def test_embeddings_baseline_beats_the_majority_where_states_know() -> None:
    layers = [states({}, layer=0), states(gold(), layer=1), states({}, layer=2)]
    table = best_of_states(pa.concat_tables([run(layer, gold()) for layer in layers]))
    assert evaluate(table, [FEVER, PLACE]).macro_f1 > 0.97
    few = {"fever": np.arange(N) // 159, "place": np.zeros(N, int)}  # nothing to cross-validate
    assert best_of_states(pa.concat_tables([run(layer, few) for layer in layers])).num_rows == N


def test_pooled_reads_what_the_stage_writes() -> None:
    schema = rows.states([0, 3])
    assert rows.layers_of(schema) == [0, 3]
    notes = [
        {"note_id": "a", "task_id": ["x", "y"], "mean_3": [1.0, 2.0], "last_3": [3.0, 4.0, 5.0, 6.0]},
        {"note_id": "without room", "task_id": []},
        {"note_id": "b", "task_id": ["y"], "mean_3": [7.0, 8.0], "last_3": [9.0, 10.0]},
    ]
    table = pa.concat_tables([rows.table(notes[:1], schema), schema.empty_table(), rows.table(notes[1:], schema)])
    last, mean = PooledStates.read(table, 3, "last"), PooledStates.read(table, 3, "mean")
    assert {key: last.states_XD[row].tolist() for key, row in last.row_of.items()} == {
        ("x", "a"): [3.0, 4.0],
        ("y", "a"): [5.0, 6.0],
        ("y", "b"): [9.0, 10.0],
    }
    assert mean.states_XD.tolist() == [[1.0, 2.0], [7.0, 8.0]]
    assert mean.row_of["x", "a"] == mean.row_of["y", "a"] == 0


# The control task.


def test_content_word() -> None:
    assert content_word("Il 12/3 la Paziente riferisce") == "paziente"
    assert content_word("  Nega febbre") == "nega"
    assert content_word("12 34 . di") is None


def words(n: int) -> dict[str, str]:
    return {note_id: f"w{(i // 2) % n}" for i, note_id in enumerate(NOTES)}  # each in training and in test


def test_control_labels_hang_on_the_word_alone() -> None:
    word_of = words(40) | {"n000": "seen nowhere else"}
    table = labels(gold())
    control = control_labels(table, word_of, [FEVER, PLACE], "test")
    by_word: dict[tuple[str, str], set[str]] = {}
    for (task_id, note_id), label in control.items():
        by_word.setdefault((task_id, word_of[note_id]), set()).add(label)
    assert all(len(found) == 1 for found in by_word.values())
    assert ("fever", "n000") not in control  # no training note has its word
    assert len(control) == 2 * N - 2
    share = np.mean([label == "yes" for (task_id, _), label in control.items() if task_id == "fever"])
    assert share == pytest.approx(0.3, abs=0.2)  # the task's own distribution
    flipped = gold()
    flipped["fever"][::2] = 1 - flipped["fever"][::2]
    assert control_labels(labels(flipped), word_of, [FEVER, PLACE], "test") == control  # no test label has a say


def test_selectivity_tells_reading_from_learning_by_heart() -> None:
    settings = config.Probe(c=(1.0,))
    control = control_labels(labels(gold()), words(WIDTH), [FEVER, PLACE], "test")
    word = {note_id: int(w[1:]) for note_id, w in words(WIDTH).items()}
    knows_word = {t: np.asarray([word[n] for n in NOTES]) for t in ("fever", "place")}
    found = [
        selectivity(run(states(signal), gold(), settings, control=control), 1, "last", [FEVER, PLACE])
        for signal in (gold(), knows_word)
    ]
    assert found[0].value > 0.35
    assert found[0].task > 0.97
    assert found[1].value < -0.35
    assert found[1].control > 0.97


def test_no_selectivity_where_no_word_recurs() -> None:
    own_words = {note_id: note_id for note_id in NOTES}
    control = control_labels(labels(gold()), own_words, [FEVER, PLACE], "test")
    probed = run(states(gold()), gold(), config.Probe(c=(1.0,)), control=control)
    assert selectivity(probed, 1, "last", [FEVER, PLACE]) is None


# Several students.


def test_curves_and_best_layers() -> None:
    half = {t: np.where(np.arange(N) % 5 > 0, g, 0) for t, g in gold().items()}
    probed = {
        "backbone": pa.concat_tables([run(states({}, layer=0), gold()), run(states(half, layer=1), gold())]),
        "train/x": pa.concat_tables([run(states({}, layer=0), gold()), run(states(gold(), layer=1), gold())]),
    }
    scores = layer_scores(probed, [FEVER, PLACE], 200, 0)
    assert [(s.student, s.layer) for s in scores] == [(n, k) for k in (0, 1) for n in ("backbone", "train/x")]
    backbone, student = best_layers(probed, scores, [FEVER, PLACE], "backbone", 200, 0)
    assert (backbone.score.layer, student.score.layer) == (1, 1)
    assert backbone.difference is None
    value = student.score.macro_f1.value - backbone.score.macro_f1.value
    assert student.difference.value == pytest.approx(value)
    assert student.difference.low > 0
    assert backbone.score.inner_f1 < student.score.inner_f1
