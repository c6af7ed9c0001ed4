"""The sentences that open a report say what its table allows, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raypipe.evaluation.faithfulness_table import FaithfulnessRow, where_to_start
from raypipe.evaluation.uncertainty import Caveat, Estimate, PairedDifference
from raypipe.findings.gates import Gate
from raypipe.findings.page.report import ArmRow, Report
from raypipe.findings.summary import Scope, of_arms, of_faithfulness

SCOPE = Scope(12, 400, "test", 200, 1500, 1, 1, False)


def row(arm: str, value: float, width: float = 0.02, caveats: tuple[Caveat, ...] = (), p: float = 0.01) -> ArmRow:
    estimate = Estimate(value, value - width, value + width, 5, 12, caveats, "jointly")
    return ArmRow(arm, estimate, PairedDifference(arm, "sft", estimate, {}, 9, 1, 2, p, p))


def said(*rows: ArmRow, scope: Scope = SCOPE, **fields: object) -> str:
    sft = ArmRow("sft", Estimate(0.6, 0.5, 0.7, 5, 12, (), "jointly"))
    return of_arms(Report("x", arms=(sft, *rows), **fields), scope)  # type: ignore[arg-type]


def test_a_clear_difference_is_named_with_its_interval() -> None:
    text = said(row("a", 0.05), row("b", -0.05), row("c", 0.01))
    assert text.startswith(
        "4 ways of learning from 200 labelled notes and 1,500 notes read without labels were measured"
    )
    assert "on 12 tasks of 400 labelled test notes." in text
    assert "Clearly better than sft in macro F1: a (+5.0 points, 95 % interval +3.0 to +7.0)." in text
    assert "Clearly worse than sft in macro F1: b (-5.0 points" in text
    assert "equality is not shown either" in text  # of c
    assert "generated" not in text


@pytest.mark.parametrize("passed", [False, None])
def test_after_a_failed_gate_nothing_is_said_of_any_arm(passed: bool | None) -> None:
    gates = (Gate("ok", 1, 0, True), Gate("bad", None, 0, passed), Gate("spare", None, 0, None, is_needed=False))
    text = said(row("a", 0.05), gates=gates)
    assert "Nothing can be said about which way is better: 1 of 2 gates that count was not passed (bad)." in text
    assert "learly" not in text


def test_one_run_or_few_tasks_name_no_winner() -> None:
    for caveat, why in (("single_run", "trained once"), ("single_seed", "one seed"), ("too_few_tasks", "so few tasks")):
        text = said(row("a", 0.05, caveats=(caveat,)))  # type: ignore[arg-type]
        assert why in text
        assert "Clearly" not in text
        assert "No way is clearly better or worse than sft." in text


def test_generated_notes_and_runs_are_said() -> None:
    text = said(row("a", 0.01), scope=replace(SCOPE, is_generated=True, n_seeds=5, n_repeats=2))
    assert "each 10 times" in text
    assert text.endswith("The notes are generated: nothing follows for real ones.")


def variant(name: str, value: float, low: float, seconds: float = 1.0) -> FaithfulnessRow:
    measures = dict.fromkeys([f"comprehensiveness_{q}" for q in (1, 5, 10, 20, 50)], value)
    return FaithfulnessRow(
        name, "random" if name == "random" else "m", "sum", "margin", 0, 10, value, 0.0, 0.0, 0.0, **measures,
        reversed=0.0, vs_random=value, vs_random_low=low, vs_random_high=2 * value, vs_best=value - 0.3,
        vs_best_low=value - 0.4, vs_best_high=value - 0.2, seconds=seconds, agreement=None,
    )  # fmt: skip


def test_faithfulness_crowns_nobody_where_all_are_zero_or_level_with_random() -> None:
    zeros = [variant("a", 0.0, 0.0), variant("random", 0.0, 0.0), variant("b", 0.0, 0.0)]
    assert where_to_start(zeros).startswith("No variant is first: none is above random relevance")
    assert where_to_start([variant("a", 0.1, -0.1), variant("b", 0.05, -0.2)]).startswith("No variant is first")
    clear = [variant("a", 0.3, 0.2), variant("b", 0.05, -0.2)]
    assert where_to_start(clear).startswith("a is above every other variant")
    assert where_to_start(clear, has_learned=True) == where_to_start(clear)
    assert "has not learned" in where_to_start(clear, has_learned=False)
    assert where_to_start(clear[:1]) == "a is above random relevance (95 %); there is no other variant."
    wide = [variant("a", 0.3, -0.1), variant("b", 0.25, 0.1), variant("c", 0.05, 0.01, seconds=0.1)]
    said = where_to_start(wide)
    assert said.startswith("No variant is first: a has the highest mean, but is not above random relevance")
    assert said.endswith("cheapest above random: b (1.0 s)."), "c is below a"
    level = [variant("a", 0.3, 0.2), variant("b", 0.25, -0.1, seconds=0.1)]
    said = where_to_start(level)
    assert said.endswith("cannot be told from the first: 1; cheapest above random: a (1.0 s)."), (
        "b is level with random"
    )


def test_what_a_scorer_that_guesses_says_is_nothing() -> None:
    text = of_faithfulness([variant("a", 0.3, 0.2), variant("random", 0, 0)], "9 questions on 5 notes", 0.5, False)
    assert text.startswith("1 way of computing relevance was measured on 9 questions on 5 notes. ")
    assert "One answer for each task could do as well" in text
    assert "chance" in of_faithfulness([], "9 questions", 0.5, None)
