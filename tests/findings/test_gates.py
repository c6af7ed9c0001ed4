"""A gate that cannot be measured says how it could be."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa

from raypipe.evaluation.agreement import AnnotatedRelevance, agreement
from raypipe.evaluation.metrics import MIN_SCORED_NOTES
from raypipe.findings.gates import Gate, gates
from raypipe.findings.known_words import AgreementRow
from raypipe.findings.page import html as page
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.predictions import Pooled
from tests.tuning.searches import made_tasks, predictions


def test_without_a_random_start_the_fix_is_named() -> None:
    tasks, pooled = made_tasks(2), Pooled()
    for arm, right in (("sft", 0.9), ("tfidf_logistic", 0.8)):
        pooled.add(arm, 0, predictions(right, tasks, 2 * MIN_SCORED_NOTES, seed=1))
    first, *_ = gates(pooled, None, tasks, "sft", None)
    assert first.passed is None
    assert "random_init: {start: random}" in first.detail
    assert "random_init: {start: random}" in text_table(Report("x", gates=(first,)))


def test_where_every_note_has_one_label_no_gate_can_be_measured() -> None:
    tasks, pooled = made_tasks(1), Pooled()
    for arm in ("sft", "random_init", "tfidf_logistic"):
        table = predictions(0.9, tasks, 2 * MIN_SCORED_NOTES, seed=1)
        same = pa.repeat(tasks[0].options[0], len(table)).cast(pa.string())
        pooled.add(arm, 0, table.set_column(table.column_names.index("label"), "label", [same]))
    three = [gate for gate in gates(pooled, None, tasks, "sft", "random_init") if gate.is_needed]
    assert [gate.passed for gate in three] == [None, None]
    assert all("two labels" in gate.detail for gate in three)


def test_relevance_of_arms_is_asked_of_where_the_run_has_none() -> None:
    tasks, pooled = made_tasks(1), Pooled()
    is_deciding_W = np.arange(20) < 3
    good, blind = (
        agreement([AnnotatedRelevance(str(i), np.float32(sign * is_deciding_W), is_deciding_W) for i in range(9)], 0.15)
        for sign in (1, -1)
    )
    of_arms = [AgreementRow("attnlrp", good, "one"), AgreementRow("kv_direct", blind, "two")]
    *_, first, second = gates(pooled, None, tasks, "sft", None, of_arms)
    assert (first.passed, second.passed) == (True, False)
    assert "kv_direct" in second.detail
    *_, last = gates(pooled, None, tasks, "sft", None, [AgreementRow("grad_x_activation", good), *of_arms])
    assert last.passed  # the run's own relevance answers for its masks
    assert last.name == first.name
    *_, last = gates(pooled, None, tasks, "sft", None, [of_arms[0], replace(of_arms[1], method="random")])
    assert last.passed, "a control need not hit"
    *_, last = gates(pooled, None, tasks, "sft", None)
    assert (last.name, last.passed) == (first.name, None)


def test_the_table_says_which_gates_are_needed() -> None:
    report = Report("x", gates=(Gate("a", 1, 0, True), Gate("b", None, 0, None, "why", is_needed=False)))
    table = re.sub(" +", " ", text_table(report))
    assert "a needed 1.000 0.000 passed" in table
    assert "b not needed - 0.000 not measurable" in table
    source = page.html(report)
    assert [source.count(f'"text">{word}<') for word in ("needed", "not needed")] == [1, 1]
    assert report.counting_gates == report.gates[:1]
