"""Sensitivity, predictive values, confusion and calibration, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe import rows
from raypipe.evaluation.operating_point import Resamples, answers, calibration, wilson
from raypipe.notes.tasks import Task

BINARY = Task("fever", "binary", "Fever?", ("yes", "no"), ("sì", "no"))
THREE = Task("smoking", "multiclass", "Smokes?", ("now", "ex", "never"), ("a", "b", "c"))


def predictions(task, pairs, p=0.9):
    """A note for each (label, answer)."""
    low = np.log((1 - p) / (len(task.options) - 1))
    return rows.table(
        [
            {
                "task_id": task.id,
                "note_id": f"n{i:03d}",
                "label": label,
                "predicted": said,
                "scores": [float(np.log(p)) if option == said else float(low) for option in task.options],
            }
            for i, (label, said) in enumerate(pairs)
        ],
        rows.PREDICTIONS,
    )


def test_rates_of_a_binary_task_are_those_of_its_first_option():
    table = predictions(BINARY, [("yes", "yes")] * 6 + [("yes", "no")] * 4 + [("no", "yes")] * 3 + [("no", "no")] * 27)
    of_task = answers([table], [BINARY], [0])["fever"]
    (yes,) = of_task.classes
    assert (yes.label, yes.n, of_task.n_notes) == ("yes", 10, 40)
    assert yes.prevalence.value == 10 / 40
    assert yes.sensitivity.value == 6 / 10
    assert yes.specificity.value == 27 / 30
    assert yes.ppv.value == pytest.approx(6 / 9)
    assert yes.npv.value == pytest.approx(27 / 31)
    assert of_task.confusion == ((6, 4, 0), (3, 27, 0))
    assert yes.sensitivity.low <= 0.313
    assert yes.sensitivity.high >= 0.832  # Wilson's for 6 of 10


def test_three_of_three_is_not_certain():
    table = predictions(BINARY, [("yes", "yes")] * 3 + [("no", "no")] * 30)
    sensitivity = answers([table], [BINARY], [0])["fever"].classes[0].sensitivity
    assert (sensitivity.value, sensitivity.high) == (1.0, 1.0)
    assert sensitivity.low == pytest.approx(0.4385, abs=1e-3)
    assert wilson(0.0, 5)[0] == 0.0


def test_a_patient_with_many_notes_counts_once():
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 20 + [("no", "no")] * 10
    table = predictions(BINARY, pairs)
    groups = ["a"] * 20 + ["b"] * 20 + [f"c{i}" for i in range(10)]
    grouped = table.set_column(table.schema.get_field_index("group_id"), "group_id", [groups])
    alone = answers([table], [BINARY], [0])["fever"].classes[0].sensitivity
    together = answers([grouped], [BINARY], [0])["fever"].classes[0].sensitivity
    assert together.value == alone.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_runs_are_averaged_and_a_run_that_calls_none_has_no_ppv():
    some = predictions(BINARY, [("yes", "yes")] * 5 + [("no", "yes")] * 5 + [("no", "no")] * 10)
    none = predictions(BINARY, [("yes", "no")] * 5 + [("no", "no")] * 15)
    of_task = answers([some, none], [BINARY], [0, 1])["fever"]
    assert of_task.classes[0].sensitivity.value == 0.5
    assert of_task.classes[0].ppv.value == 0.5  # of the one run that has any
    assert of_task.confusion[0] == (2.5, 2.5, 0)
    assert of_task.only_answers == ("no",)
    assert answers([none], [BINARY], [0])["fever"].classes[0].ppv.value is None


def test_a_run_without_cases_widens_a_share_to_that_of_the_other_runs():
    part_GS, whole_GS = np.asarray([[3, 5, 0], [6, 2, 0]]), np.asarray([[6, 8, 0], [9, 9, 0]])
    three, two = Resamples(2, [0, 1, 2], 500, 0), Resamples(2, [0, 1], 500, 0)
    assert three.rate(part_GS, whole_GS) == two.rate(part_GS[:, :2], whole_GS[:, :2])


def test_pooled_shares_count_a_run_by_its_cases():
    """50 cases of each of three runs and one of another: a quarter of the share is not the other's."""
    part_GS, whole_GS = np.asarray([[23, 22, 23, 0], [22, 23, 22, 0]]), np.asarray([[25, 25, 25, 1], [25, 25, 25, 0]])
    pooled = Resamples(2, [0, 1, 2, 3], 500, 0).pooled(part_GS, whole_GS)
    assert pooled.value == pytest.approx(135 / 151)
    assert 0.6 < pooled.low < 0.85
    assert 0.9 < pooled.high <= 1


def test_one_answer_is_a_matter_of_labels_that_differ():
    same = predictions(BINARY, [("no", "no")] * 20)
    assert answers([same], [BINARY], [0])["fever"].only_answers == ()
    nothing = predictions(BINARY, [("no", None), ("yes", None)] * 10)
    assert answers([nothing], [BINARY], [0])["fever"].only_answers == ("none",)


def test_every_class_of_a_multiclass_task_has_its_rates():
    pairs = [("now", "now")] * 4 + [("ex", "now")] * 2 + [("ex", "ex")] * 2 + [("never", "never")] * 12
    of_task = answers([predictions(THREE, pairs)], [THREE], [0])["smoking"]
    assert [c.label for c in of_task.classes] == ["now", "ex", "never"]
    assert [c.sensitivity.value for c in of_task.classes] == [1.0, 0.5, 1.0]
    assert of_task.classes[0].ppv.value == pytest.approx(4 / 6)


def test_calibration_compares_confidence_with_what_is_right():
    sure = [("yes", "yes")] * 30 + [("no", "yes")] * 10  # 75 % right, said with 90 %
    calibrated = calibration([predictions(BINARY, sure)], [BINARY], [0])
    assert sum(b.n for b in calibrated.bins) == 40
    assert all(b.confidence == pytest.approx(0.9) for b in calibrated.bins)
    right = sum(b.right.value * b.n for b in calibrated.bins) / 40
    assert right == pytest.approx(0.75)
    assert calibration([predictions(BINARY, sure, 0.75)], [BINARY], [0]).error < calibrated.error
