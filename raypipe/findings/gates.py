"""What must hold before arms may be ranked (docs/method.md). Where a gate fails, the report says "not measurable".

With several runs a gate asks that the 95 % interval of the difference lies above 0; a single run has no fair interval,
and the difference itself must do. Words that decide are known in few corpora: that gate holds where it can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.evaluation import metrics, uncertainty
from raypipe.findings.known_words import AgreementRow
from raypipe.findings.predictions import Pooled
from raypipe.notes.tasks import Task
from raypipe.runs.names import SCORER, TFIDF

AUC_MARGIN = 0.05  # a decoder further below TF-IDF + logistic regression has not learned to read the note
AUC_RESAMPLES = 500  # resampling AUC costs far more than resampling macro F1

NO_RANDOM_START = "no arm starts from random weights, or it is not evaluated; add one: `random_init: {start: random}`"
NO_TWO_LABELS = "no task has notes of two labels in evaluation.split, so no answer can be ranked"


@dataclass(frozen=True)
class Gate:
    """A condition without which arms cannot be ranked (docs/method.md)."""

    name: str  # "SFT from the backbone beats SFT from random weights"
    measured: float | None  # in the unit of the threshold
    threshold: float | None
    passed: bool | None  # None: could not be measured
    detail: str = ""  # how it was measured, or why it was not
    is_needed: bool = True  # if it cannot be measured, nothing is ranked


def gates(
    pooled: Pooled,
    quarter: tuple[int, Pooled] | None,
    tasks: Sequence[Task],
    reference: str,
    random_start: str | None,
    agreements: Sequence[AgreementRow] = (),
    has_own_scorer: bool = False,
) -> Iterator[Gate]:
    """The gates of a run or comparison. `quarter`: labels per task, and the runs with as many.

    `agreements`: of the run's relevance if it has one, which its masks read; else of each arm that has its own.
    `has_own_scorer`: the scorer is trained on labels, and is no student, so it must read as well as the students.
    """
    tables, seeds = pooled.tables, pooled.seeds

    def gain(name: str, over: list[pa.Table], seeds_of_over: list[int], missing: str) -> Gate:
        if reference not in tables:
            return Gate(name, None, 0.0, None, f"{reference} was not evaluated: run `raypipe evaluate`, or `run`")
        if not over:
            return Gate(name, None, 0.0, None, missing)
        if not _is_ranked(over[0], tasks):
            return Gate(name, None, 0.0, None, NO_TWO_LABELS)
        if len(tables[reference]) == len(over) == 1:
            measured, detail = _auc(tables[reference], tasks) - _auc(over, tasks), "AUC, difference of single runs"
        else:
            of_both = {reference: seeds[reference], "": seeds_of_over}
            pair = compare_by_auc({reference: tables[reference], "": over}, tasks, [(reference, "")], seeds=of_both)
            assert pair is not None  # noqa: S101 (a task has two labels)
            e = pair.differences[0].estimate
            measured, detail = e.low, f"AUC {100 * e.value:+.1f} points; measured: the interval's lower end"
        return Gate(name, measured, 0.0, measured > 0, detail)

    start, fix = random_start or "", NO_RANDOM_START
    yield gain("The backbone beats random initial weights", tables.get(start, []), seeds.get(start, []), fix)
    if quarter is not None:
        n, least = quarter
        name = f"All labels beat {n} per task, at as many optimiser steps"
        missing = f"{reference} of {n} labels is not finished: run `raypipe compare` again"
        yield gain(name, least.tables.get(reference, []), least.seeds.get(reference, []), missing)
    for reader in (reference, *([SCORER] if has_own_scorer else [])):
        yield _not_behind(reader, tables, tasks)
    name = "Relevant words are deciding words, above chance"
    methods = [row for row in agreements if row.method != "random"]  # a control need not hit
    for row in [row for row in methods if row.arm is None] or methods:
        above = row.agreement.lift_interval[0]
        detail = f"{row.name}: lower end of the 95 % interval of hit share less chance"
        yield Gate(name, above, 0.0, above > 0, detail, is_needed=False)
    if not methods:
        yield Gate(name, None, 0.0, None, "no deciding words are known here", is_needed=False)


def compare_by_auc(
    arms: Mapping[str, Sequence[pa.Table]],
    tasks: Sequence[Task],
    pairs: Sequence[tuple[str, str]],
    n_bootstrap: int = AUC_RESAMPLES,
    **options: Any,
) -> uncertainty.ComparisonResult | None:
    """As `uncertainty.compare_arms`, by AUC; None if no task has notes of two labels."""
    if not _is_ranked(next(iter(arms.values()))[0], tasks):
        return None
    n = min(n_bootstrap, AUC_RESAMPLES)
    return uncertainty.compare_arms(arms, tasks, pairs, measure="auc", n_bootstrap=n, **options)


def _is_ranked(table: pa.Table, tasks: Sequence[Task]) -> bool:
    """Has some task notes of two labels? Every arm answers about the same notes."""
    return any(len(np.unique(rows.gold_N)) > 1 for rows in metrics.by_task(table, tasks))


def _not_behind(reader: str, tables: Mapping[str, Sequence[pa.Table]], tasks: Sequence[Task]) -> Gate:
    """Does a student, or the scorer, learn as much of the notes as counts of their words say?"""
    name = f"{reader} is not behind TF-IDF + logistic regression"
    if reader not in tables:
        return Gate(name, None, -AUC_MARGIN, None, f"{reader} was not evaluated: run `raypipe evaluate`, or `run`")
    if not _is_ranked(tables[reader][0], tasks):
        return Gate(name, None, -AUC_MARGIN, None, NO_TWO_LABELS)
    behind = _auc(tables[reader], tasks) - _auc(tables[TFIDF], tasks)
    return Gate(name, behind, -AUC_MARGIN, behind >= -AUC_MARGIN, "AUC, difference")


def _auc(tables: Sequence[pa.Table], tasks: Sequence[Task]) -> float:
    return float(np.mean([metrics.evaluate(table, tasks).auc or 0.0 for table in tables]))
