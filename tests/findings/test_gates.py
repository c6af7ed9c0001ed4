"""A gate that cannot be measured says how it could be."""

from __future__ import annotations

import re

from raypipe.evaluation.metrics import MIN_SCORED_NOTES
from raypipe.findings.gates import Gate, gates
from raypipe.findings.page import html as page
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.predictions import Pooled
from tests.tuning.searches import made_tasks, predictions


def test_without_a_random_start_the_fix_is_named() -> None:
    tasks, pooled = made_tasks(2), Pooled()
    for arm, right in (("sft", 0.9), ("tfidf_logistic", 0.8)):
        pooled.add(arm, 0, predictions(right, tasks, 2 * MIN_SCORED_NOTES, seed=1))
    first, *_ = gates(pooled, None, tasks, "sft", None, None)
    assert first.passed is None
    assert "random_init: {start: random}" in first.detail
    assert "random_init: {start: random}" in text_table(Report("x", gates=(first,)))


def test_the_table_says_which_gates_are_needed() -> None:
    report = Report("x", gates=(Gate("a", 1, 0, True), Gate("b", None, 0, None, "why", is_needed=False)))
    table = re.sub(" +", " ", text_table(report))
    assert "a needed 1.000 0.000 passed" in table
    assert "b not needed - 0.000 not measurable" in table
    source = page.html(report)
    assert [source.count(f'"text">{word}<') for word in ("needed", "not needed")] == [1, 1]
    assert report.counting_gates == report.gates[:1]
