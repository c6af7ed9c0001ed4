"""Two or three sentences that open a report: what was compared, what can be said, and what cannot.

They say no more than the table does: a difference is named only where its verdict (page/report.py) allows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raypipe.evaluation.faithfulness_table import FaithfulnessRow
from raypipe.evaluation.uncertainty import PairedDifference
from raypipe.findings.page.report import Report, outcome
from raypipe.findings.probing import Probing


@dataclass(frozen=True)
class Scope:
    """What a run or comparison looked at."""

    n_tasks: int  # that were measured
    n_scored: int  # labelled notes of the split that was scored
    split: str
    n_learned: int  # labelled notes that were learned from
    n_unlabelled: int  # notes that were read without their labels; 0: none
    n_seeds: int
    n_repeats: int
    is_generated: bool  # notes that nobody wrote


def of_arms(report: Report, scope: Scope) -> str:
    """Of a run's or comparison's report, whose other fields are filled in."""
    return " ".join([_compared(report, scope), *_said(report), *_not_said(report, scope)])


def _compared(report: Report, scope: Scope) -> str:
    names = [row.name for row in report.arms]
    runs = f", each {scope.n_seeds * scope.n_repeats} times" if scope.n_seeds * scope.n_repeats > 1 else ", each once"
    read = f" and {scope.n_unlabelled:,} notes read without labels" if scope.n_unlabelled else ""
    kind = "generated " if scope.is_generated else ""
    return (
        f"{counted(len(names), 'way')} of learning from {scope.n_learned:,} labelled {kind}notes{read} "
        f"{'were' if len(names) > 1 else 'was'} measured{runs}, on {counted(scope.n_tasks, 'task')} of "
        f"{scope.n_scored:,} labelled {scope.split} notes."
    )


def _said(report: Report) -> Iterator[str]:
    """What the verdicts allow."""
    differences = [row.difference for row in report.arms if row.difference]
    if report.failed_gates:
        n, of = len(report.failed_gates), len(report.counting_gates)
        were, names = "were" if n > 1 else "was", "; ".join(gate.name for gate in report.failed_gates)
        said = f"{n} of {of} gates that count {were} not passed ({names})"
        yield f"Nothing can be said about which way is better: {said}."
        return
    for verdict in ("better", "worse"):
        those = [d for d in differences if outcome(d, report) == verdict]
        if those:
            yield f"Clearly {verdict} than {report.reference} in macro F1: {', '.join(map(_difference, those))}."
    if differences and not any(outcome(d, report) in ("better", "worse") for d in differences):
        yield f"No way is clearly better or worse than {report.reference}."


def _not_said(report: Report, scope: Scope) -> Iterator[str]:
    """What the intervals and the notes leave open."""
    verdicts = {outcome(row.difference, report) for row in report.arms if row.difference}
    if "one run only" in verdicts:
        yield "Each way was trained once, so a second training could turn any difference around."
    if "one seed only" in verdicts:
        yield "There is one seed, so another choice of notes could turn any difference around."
    if "too few tasks" in verdicts:
        yield "With so few tasks no difference could be called clear, whatever its size."
    if "no clear difference" in verdicts:
        yield "Where no difference is clear, equality is not shown either."
    if scope.is_generated:
        yield "The notes are generated: nothing follows for real ones."


def _difference(d: PairedDifference) -> str:
    e = d.estimate
    return f"{d.arm} ({100 * e.value:+.1f} points, 95 % interval {100 * e.low:+.1f} to {100 * e.high:+.1f})"


def of_faithfulness(rows: Sequence[FaithfulnessRow], title: str, accuracy: float, has_learned: bool | None) -> str:
    """`title`: on what it was measured. `has_learned`: is the scorer above one answer per task? None: not known."""
    n_variants = sum(row.method != "random" for row in rows)
    ways = f"{counted(n_variants, 'way')} of computing relevance {'was' if n_variants == 1 else 'were'}"
    said = {
        True: "More than one answer for each task would.",
        False: "One answer for each task could do as well: it has not learned them, and nothing follows of any method.",
        None: "If that is chance, nothing follows about any method.",
    }
    return f"{ways} measured on {title}. The scorer answers {100 * accuracy:.1f} % of them right. {said[has_learned]}"


def of_probing(probing: Probing | None, n_tasks: int) -> str:
    """What the probes can say."""
    if probing is None or not probing.best:
        return ""
    others = [best for best in probing.best if best.difference is not None]
    higher = [best.score.student for best in others if best.difference and best.difference.low > 0]
    tasks, models = counted(n_tasks, "task"), counted(len(probing.students), "model")
    first = f"Small classifiers read {tasks} off the frozen layers of {models}."
    second = f"Above the backbone at their best layers (95 %): {', '.join(higher) or 'none'}." if others else ""
    third = "One run of each model was read, so training them again could change the order."
    return " ".join(filter(None, (first, second, third)))


def counted(n: int, what: str) -> str:
    """1 task, 2 tasks."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"
