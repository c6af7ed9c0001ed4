"""What a report is made of: plain values, every part optional. What is empty is not shown.

Shares (macro F1, AUC, hit share) lie in [0, 1] here; pages and tables show points (times 100). Note text occurs in
`heat_maps` only, so a report without heat maps can leave the hospital.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from raypipe.evaluation.conformal import Sets
from raypipe.evaluation.faithfulness_table import FaithfulnessRow
from raypipe.evaluation.metrics import Metrics, mean
from raypipe.evaluation.operating_point import Calibration, TaskAnswers
from raypipe.evaluation.uncertainty import SIGNIFICANT, Caveat, ComparisonResult, Estimate, PairedDifference
from raypipe.findings.finetunings import Gain
from raypipe.findings.gates import Gate
from raypipe.findings.known_words import AgreementRow
from raypipe.findings.material import Material, StepTime
from raypipe.findings.page.heatmap import HeatMap
from raypipe.findings.probing import Probing
from raypipe.findings.training_curves import Curve

NO_VERDICT: dict[Caveat, str] = {
    "single_run": "one run only",
    "single_seed": "one seed only",
    "too_few_tasks": "too few tasks",
}


MAX_NAMED = 5  # tasks in a sentence


@dataclass(frozen=True)
class ArmRow:
    """One line of the headline table: means over tasks and runs."""

    name: str
    macro_f1: Estimate
    difference: PairedDifference | None = None  # from the reference; None: is the reference, or not compared
    auc: float | None = None
    pooled_macro_f1: float | None = None
    matched_f1: float | None = None  # macro F1 at the matched positive rate
    cv_f1: float | None = None  # macro F1 at cross-validated thresholds
    auc_difference: Estimate | None = None  # from the reference


@dataclass(frozen=True)
class Report:
    """All that `write_report` and `text_table` show."""

    title: str
    subtitle: str = ""  # corpus, backbone, date: one line
    summary: str = ""  # what was compared, what can be said and what cannot, in a few sentences
    meanings: Mapping[str, str] = field(default_factory=dict)  # arm -> what it is
    reference: str = "sft"  # the arm that differences are taken from
    pairs: tuple[PairedDifference, ...] = ()  # declared comparisons of one arm with another than the reference
    budgets: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # labels per task -> arm -> macro F1
    gains: tuple[Gain, ...] = ()  # of each fine-tuning, if there are several; by labels and steps
    arms: tuple[ArmRow, ...] = ()  # in the order of the config; `arm_rows` builds them
    tasks: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)  # arm -> task id -> macro F1
    answers: Mapping[str, Mapping[str, TaskAnswers]] = field(default_factory=dict)  # arm -> task id -> what it answered
    wordings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # task id -> label -> as the model says it
    calibration: Mapping[str, Calibration] = field(default_factory=dict)  # by arm
    curves: tuple[Curve, ...] = ()  # of the trainings
    gates: tuple[Gate, ...] = ()
    agreement: tuple[AgreementRow, ...] = ()
    faithfulness: tuple[FaithfulnessRow, ...] = ()  # best first; of `raypipe faithfulness`
    where_to_start: str = ""  # which of its variants, if any
    conformal: Mapping[str, Sets] = field(default_factory=dict)  # arm -> its prediction sets
    probing: Probing | None = None
    heat_maps: tuple[HeatMap, ...] = ()  # hold note text; never written to metrics.json
    material: tuple[Material, ...] = ()
    steps: tuple[StepTime, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # "notes read": 4000, "tokens cut": 120, ...
    dead_letters: Mapping[str, int] = field(default_factory=dict)  # errors.Code -> notes
    remarks: Mapping[str, str] = field(default_factory=dict)  # what the table leaves out, what pseudo-labels were kept
    facts: Mapping[str, str] = field(default_factory=dict)  # versions, fingerprint, seeds, command, device
    config: str = ""  # the resolved config as YAML

    @property
    def arms_by_budget(self) -> list[str]:
        """Arms that were measured at more than one label budget."""
        times = Counter(arm for estimates in self.budgets.values() for arm in estimates)
        return [arm for arm, n in times.items() if n > 1]

    def worded(self, task_id: str, label: str) -> str:
        """A label as the table writes it and, where that differs, as the model says it: `1 = yes`."""
        answer = self.wordings.get(task_id, {}).get(label, label)
        return label if answer == label else f"{label} = {answer}"

    def given(self, task: TaskAnswers, label: int) -> str:
        """What the notes of a label were taken for."""
        return task.given(label, partial(self.worded, task.task_id))

    @property
    def single_answers(self) -> Iterator[str]:
        """A sentence on the arms that give all notes of some task one answer, though their labels differ."""
        those: dict[str, list[str]] = {}
        for arm, of_arm in self.answers.items():
            alike = [task for task in of_arm.values() if task.only_answers]
            tasks = [f"{task.task_id} ({self._only(task)})" for task in alike]
            if tasks:
                more = f" and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else ""
                some = f"in {len(tasks)} of {len(of_arm)} tasks: {', '.join(tasks[:MAX_NAMED])}{more}"
                those.setdefault(some, []).append(arm)
        for some, arms in those.items():
            yield f"{', '.join(arms)}: one answer for every note, whatever it says, {some}"

    def _only(self, task: TaskAnswers) -> str:
        return ", ".join(self.worded(task.task_id, answer) for answer in dict.fromkeys(task.only_answers))

    @property
    def counting_gates(self) -> tuple[Gate, ...]:
        """Gates that can forbid a ranking: those that must be measured, and those that failed."""
        return tuple(g for g in self.gates if g.is_needed or g.passed is False)

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        """Gates that failed, or could not be measured but must be: with any of them, no arm may be called better."""
        return tuple(g for g in self.gates if g.passed is False or (g.passed is None and g.is_needed))


def arm_rows(
    comparison: ComparisonResult,
    runs: Mapping[str, Sequence[Metrics]],
    reference: str,
    auc: ComparisonResult | None = None,
) -> tuple[ArmRow, ...]:
    """The headline lines of a macro F1 comparison; `runs` are the metrics of each arm's runs.

    `auc`: the same comparison on AUC.
    """
    difference_of = {d.arm: d for d in comparison.differences if d.reference == reference}
    auc_of = {d.arm: d.estimate for d in auc.differences if d.reference == reference} if auc else {}
    return tuple(
        ArmRow(
            name,
            estimate,
            difference_of.get(name),
            auc=mean([m.auc for m in runs[name]]),
            auc_difference=auc_of.get(name),
            pooled_macro_f1=mean([m.pooled_macro_f1 for m in runs[name]]),
            matched_f1=mean([m.matched_f1 for m in runs[name]]),
            cv_f1=mean([m.cv_f1 for m in runs[name]]),
        )
        for name, estimate in comparison.arms.items()
    )


def verdict(row: ArmRow, report: Report) -> str:
    """What may be said of the arm's difference from the reference."""
    if row.difference is None:
        return "reference" if row.name == report.reference else ""
    return outcome(row.difference, report)


def outcome(difference: PairedDifference, report: Report) -> str:
    """What may be said of a difference."""
    if report.failed_gates:
        return "not measurable"
    return without_gates(difference)


def without_gates(difference: PairedDifference) -> str:
    """What may be said of a difference if its gates pass, or if it has none, as that of two settings of a search."""
    for caveat, told in NO_VERDICT.items():
        if caveat in difference.estimate.caveats:
            return told
    if difference.p_holm >= SIGNIFICANT or difference.estimate.low <= 0 <= difference.estimate.high:
        return "no clear difference"
    return "better" if difference.estimate.low > 0 else "worse"
