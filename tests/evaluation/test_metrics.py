"""Measures against hand-computed values and scikit-learn."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score

from raypipe import rows
from raypipe.evaluation import metrics
from raypipe.evaluation.resampling import count_tasks
from raypipe.notes.tasks import Task

FEVER = Task("fever", "binary", "fever", ("yes", "no"), ("sì", "no"))
CLASS = Task("class", "multiclass", "class", ("a", "b", "c"), ("a", "b", "c"))


def predictions(task, gold, predicted, scores=None, groups=None):
    n = len(gold)
    scores = [[0.0] * len(task.options)] * n if scores is None else scores
    return rows.table(
        [
            {
                "task_id": task.id,
                "note_id": f"n{i:04d}",
                "group_id": None if groups is None else groups[i],
                "label": gold[i],
                "predicted": predicted[i],
                "scores": scores[i],
            }
            for i in range(n)
        ],
        rows.PREDICTIONS,
    )


def random_predictions(task, n, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, len(task.options))).round(1)  # rounded: ties occur
    return predictions(
        task,
        [str(x) for x in rng.choice(task.options, n)],
        [str(x) for x in rng.choice(task.options, n)],
        scores.tolist(),
    )


def test_macro_f1_by_hand():
    # yes: TP 1, called 2, gold 2 -> 1/2; no: TP 1, called 2, gold 2 -> 1/2
    result = metrics.evaluate(predictions(FEVER, ["yes", "yes", "no", "no"], ["yes", "no", "yes", "no"]), [FEVER])
    assert result.macro_f1 == pytest.approx(0.5)
    assert result.accuracy == pytest.approx(0.5)
    assert result.tasks[0].support == {"yes": 2, "no": 2}


def test_prediction_outside_the_gold_labels_costs_recall_only():
    # c has no gold support: it is no label of the mean, but one of the two a's is lost. a: 2*1/(1+2), b: 2*1/(1+1)
    result = metrics.evaluate(predictions(CLASS, ["a", "a", "b"], ["a", "c", "b"]), [CLASS])
    assert result.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("missing", [None, "maybe"])
def test_no_or_unknown_prediction_is_wrong(missing):
    result = metrics.evaluate(predictions(FEVER, ["yes", "no"], ["yes", missing]), [FEVER])
    assert result.macro_f1 == pytest.approx((1 + 0) / 2)
    assert result.accuracy == 0.5


def test_null_scores_are_undecided():
    result = metrics.evaluate(
        predictions(FEVER, ["yes", "no", "no"], ["yes", "no", None], [[1.0, 0.0], [0.0, 1.0], None]), [FEVER]
    )
    assert result.auc == 1.0  # margin 0 still lies below the positive's


def test_how_likely_a_note_makes_any_option_ranks_nothing():
    gold = ["a", "b", "c"] * 4
    rng = np.random.default_rng(0)
    scores = np.where(np.asarray(gold)[:, None] == np.asarray(CLASS.options), -0.1, -2.0)
    shifted = scores + rng.normal(scale=9, size=(len(gold), 1))
    for table in (scores, shifted):
        assert metrics.evaluate(predictions(CLASS, gold, gold, table.tolist()), [CLASS]).auc == 1.0
        counts, _ = count_tasks({"": [predictions(CLASS, gold, gold, table.tolist())]}, [CLASS], "auc")
        assert counts[0].values(np.ones((1, len(gold)), np.float32))[0, 0] == 1.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", [FEVER, CLASS], ids=lambda t: t.kind)
def test_agrees_with_scikit_learn(task, seed):
    table = random_predictions(task, 60, seed)
    gold, predicted = table["label"].to_pylist(), table["predicted"].to_pylist()
    scores = np.asarray(table["scores"].to_pylist())
    result = metrics.evaluate(table, [task])
    assert result.macro_f1 == pytest.approx(f1_score(gold, predicted, labels=sorted(set(gold)), average="macro"))
    if task is FEVER:
        expected = roc_auc_score([g == "yes" for g in gold], scores[:, 0] - scores[:, 1])
    else:
        p_NC = softmax(scores, axis=1)
        expected = np.mean([roc_auc_score([g == c for g in gold], p_NC[:, i]) for i, c in enumerate(task.options)])
    assert result.auc == pytest.approx(expected)


def test_pooled_sums_counts_and_means_average_tasks():
    other = Task("cough", "binary", "cough", ("yes", "no"), ("sì", "no"))
    tables = [random_predictions(FEVER, 30, 0), random_predictions(other, 90, 1)]
    result = metrics.evaluate(pa.concat_tables(tables), [other, FEVER])
    gold = [g for t in tables for g in t["label"].to_pylist()]
    predicted = [p for t in tables for p in t["predicted"].to_pylist()]
    assert result.pooled_macro_f1 == pytest.approx(f1_score(gold, predicted, average="macro"))
    alone = [metrics.evaluate(t, [FEVER, other]).macro_f1 for t in tables]
    assert result.macro_f1 == pytest.approx(np.mean(alone))
    assert result.macro_f1 != pytest.approx(result.pooled_macro_f1)
    assert [t.task_id for t in result.tasks] == ["cough", "fever"]


def test_one_gold_label_leaves_ranking_measures_undefined():
    result = metrics.evaluate(predictions(FEVER, ["no"] * 4, ["no", "no", "no", "yes"]), [FEVER])
    assert (result.auc, result.matched_f1, result.cv_f1) == (None, None, None)
    assert result.macro_f1 == pytest.approx(2 * 3 / (3 + 4))


def test_matched_f1_ignores_a_shift_of_the_scores():
    """A trap of macro F1: calling too many positives lowers macro F1, though the ranking is perfect."""
    gold = ["yes"] * 3 + ["no"] * 7
    scores = [[5.0 - i, -10.0] for i in range(10)]  # every margin is positive
    result = metrics.evaluate(predictions(FEVER, gold, ["yes"] * 10, scores), [FEVER])
    assert result.macro_f1 < 0.25
    assert result.matched_f1 == 1.0
    assert result.auc == 1.0


def test_constant_scores_never_profit_from_the_order_of_the_rows():
    positive = np.asarray([True] * 3 + [False] * 7)
    flat = metrics.matched_f1(positive, np.zeros(10))
    assert flat == pytest.approx((0 + 2 * 7 / 17) / 2)  # all called negative
    assert flat == metrics.matched_f1(positive[::-1], np.zeros(10))


def test_cross_validated_threshold_finds_the_shift_without_looking():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    margin = np.where(positive, 9.0, 7.0) + rng.normal(scale=0.2, size=400)
    groups = np.arange(400)
    assert metrics.cv_f1(positive, margin, groups) > 0.99
    # noise: the best threshold on the same notes would look better than the floor of a coin; held out, it must not
    noise = [metrics.cv_f1(positive, rng.normal(size=400), groups) for _ in range(20)]
    assert np.mean(noise) < 0.52


def test_cv_f1_keeps_groups_together():
    """Each group has a threshold of its own: who is judged at the other group's is half wrong."""
    positive = np.asarray([True, False] * 20)
    margin = positive + np.repeat([0.0, 10.0], 20)
    assert metrics.cv_f1(positive, margin, np.repeat([0, 1], 20)) == pytest.approx(0.5)
    assert metrics.cv_f1(positive, margin, np.zeros(40)) is None


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    positive, margin = rng.random(40) < 0.4, rng.normal(size=40).round(1)
    found = metrics._best_threshold(positive, margin)
    candidates = [*(np.unique(margin) + 0.05), -9.0]
    f1 = [f1_score(positive, margin > c, average="macro") for c in candidates]
    assert f1_score(positive, margin > found, average="macro") == pytest.approx(max(f1))


def test_refuses_what_would_give_wrong_numbers():
    good = predictions(FEVER, ["yes", "no"], ["yes", "no"])
    with pytest.raises(ValueError, match="unknown tasks"):
        metrics.evaluate(good, [CLASS])
    with pytest.raises(ValueError, match="several predictions"):
        metrics.evaluate(pa.concat_tables([good, good]), [FEVER])
    with pytest.raises(ValueError, match="gold labels"):
        metrics.evaluate(predictions(FEVER, ["maybe"], ["yes"]), [FEVER])
    with pytest.raises(ValueError, match="number of scores"):
        metrics.evaluate(predictions(FEVER, ["yes"], ["yes"], [[0.0, 0.0, 0.0]]), [FEVER])
    with pytest.raises(ValueError, match="no predictions"):
        metrics.evaluate(good.slice(0, 0), [FEVER])


def test_tasks_of_one_class_or_few_notes_measure_nothing():
    tasks = [Task(name, "binary", "?", ("yes", "no"), ("yes", "no")) for name in ("many", "one_class", "few")]
    labels = {"many": ["yes"] * 10 + ["no"] * 10, "one_class": ["no"] * 40, "few": ["yes", "no"]}

    def table(*names):
        found = [{"task_id": n, "note_id": f"{i}", "label": of} for n in names for i, of in enumerate(labels[n])]
        return rows.table(found, rows.LABELS)

    assert [task.id for task in metrics.measurable(tasks, table("many", "one_class", "few"))] == ["many"]
    assert [task.id for task in metrics.measurable(tasks, table("one_class", "few"))] == ["few"]
    assert metrics.measurable(tasks, table("one_class")) == tasks
