"""Problems that many tasks share, told once: a corpus of 150 tasks must not answer one mistake with 150 lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from raypipe.errors import Problem

MANY = 3  # tasks with the same problem, from which on it is told once
_TASK = re.compile(r"task '([^']*)'")
_OWN = re.compile(r"\([^()]*\)|\d[\d,.]*|'[^']*'")  # what differs between tasks with the same problem


def folded(problems: Iterable[Problem]) -> list[Problem]:
    """The problems, each once, in their order; one line for a problem that `MANY` tasks share, with their number."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in dict.fromkeys(problems):
        task = _TASK.search(str(problem))
        kind = (_OWN.sub("", _TASK.sub("", problem.where)), _OWN.sub("", _TASK.sub("", problem.what)))
        groups.setdefault(kind if task else (problem.where, problem.what), []).append(problem)
    return [one for group in groups.values() for one in (group if len(group) < MANY else [_once(group)])]


def _once(group: Sequence[Problem]) -> Problem:
    """The problem of the first task, with the number of the others."""
    first, others = group[0], f"{len(group) - 1} other tasks"
    named = _TASK.search(first.where)
    if named:
        where = f"{first.where[: named.end()]} and {others}{first.where[named.end() :]}"
        return replace(first, where=where)
    return replace(first, what=f"{first.what} (and {others})")


def doubts_of_tasks(doubts: Iterable[tuple[str, str]], shown: int = 4) -> list[str]:
    """(task id, doubt) as one line per doubt, with the number of its tasks and the first of their names."""
    tasks: dict[str, list[str]] = {}
    for task_id, doubt in doubts:
        tasks.setdefault(doubt, []).append(task_id)
    lines = []
    for doubt, ids in tasks.items():
        names = ", ".join(ids[:shown]) + (", ..." if len(ids) > shown else "")
        lines.append(f"{len(ids)} task{'s' if len(ids) > 1 else ''}: {doubt} ({names})")
    return lines
