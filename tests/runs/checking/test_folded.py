"""One mistake in many tasks is one line."""

from __future__ import annotations

from raypipe.errors import Problem
from raypipe.runs.checking.folded import doubts_of_tasks, folded


def _of(task: str, what: str) -> Problem:
    return Problem(f"data.labels: task '{task}'", what)


def test_the_same_problem_of_many_tasks_is_told_once() -> None:
    problems = [_of(f"t{i}", f"{500 + i} groups have notes in two splits (hashed ids: {i}a, {i}b)") for i in range(8)]
    (one,) = folded(problems)
    assert str(one) == (
        "data.labels: task 't0' and 7 other tasks: 500 groups have notes in two splits (hashed ids: 0a, 0b)"
    )


def test_other_problems_stay_as_they_are_and_in_order() -> None:
    problems = [
        Problem("seed", "1 is bad"),
        _of("a", "x 1"),
        _of("b", "x 2"),
        Problem("name", "2 is bad"),
        _of("a", "y"),
    ]
    assert folded(problems) == problems
    assert folded([*problems, *problems]) == problems, "each once"


def test_the_same_problem_at_lines_of_a_tasks_file() -> None:
    problems = [Problem(f"t.yaml:{i}: task 't{i}'", "the tokenizer has no tokens for the answer 'x'") for i in range(5)]
    assert str(folded(problems)[0]).startswith("t.yaml:0: task 't0' and 4 other tasks: the tokenizer")


def test_doubts_count_their_tasks() -> None:
    doubts = [(f"t{i}", "test has one class") for i in range(6)] + [("t0", "other")]
    assert doubts_of_tasks(doubts) == ["6 tasks: test has one class (t0, t1, t2, t3, ...)", "1 task: other (t0)"]
