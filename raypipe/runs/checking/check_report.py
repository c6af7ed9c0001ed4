"""What a check found of tasks, labels and notes, and what of it is doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.evaluation.metrics import MIN_SCORED_NOTES, measurable
from raypipe.guard.tables import align
from raypipe.notes import labels as labels_of
from raypipe.notes.split import SPLITS
from raypipe.notes.tasks import Task
from raypipe.runs.checking.folded import doubts_of_tasks

ONE_CLASS = "test has one class"
ONE_SIDED = 0.95  # share of the largest class from which on a task is a doubt


@dataclass(frozen=True)
class CheckReport:
    """What a run will work on. Prints as a table of tasks."""

    tasks: list[Task] = field(default_factory=list)
    labels: pa.Table = field(default_factory=rows.LABELS.empty_table)  # in use: within the limits of the data section
    n_notes: int = 0
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # what else is worth knowing of the notes
    is_generated: bool = False
    scored: str = "test"  # the split that the result is about
    names_labels: bool = True  # False: their counts alone, in the order of the options

    def __str__(self) -> str:
        if self.is_generated:
            return "the notes are generated, and checked, when the run starts"
        if not self.tasks or not self.labels.num_rows:  # what is wrong with them is said elsewhere
            return "\n".join(self._below)
        counts, doubts = labels_of.counts_of(self.labels), self._doubts_of_tasks
        table = [["task", "kind", *SPLITS, "labels (train)"]]
        for task in self.tasks:
            of_task = counts.get(task.id, {})
            n = [str(sum(of.get(split, 0) for of in of_task.values())) for split in SPLITS]
            of_options = [(option, of_task.get(option, {}).get("train", 0)) for option in task.options[:6]]
            shown = ", ".join(f"{o}: {n}" if self.names_labels else str(n) for o, n in of_options)
            more = f", +{len(task.options) - 6}" if len(task.options) > 6 else ""
            table.append([task.id, task.kind, *n, f"{shown}{more}{'  !' if doubts[task.id] else ''}"])
        lines = [align(table)]
        lines.append(f"{len(self.tasks)} tasks, {self.labels.num_rows:,} labels, {self.n_notes:,} notes")
        return "\n".join([*lines, *self._below])

    @property
    def _below(self) -> list[str]:
        return [*self.lines, *(f"warning: {warning}" for warning in self.doubts)]

    @property
    def doubts(self) -> list[str]:
        """All warnings, those of tasks included."""
        of_tasks = ((task_id, doubt) for task_id, doubts in self._doubts_of_tasks.items() for doubt in doubts)
        return [*doubts_of_tasks(of_tasks), *self.warnings]

    @property
    def _doubts_of_tasks(self) -> dict[str, list[str]]:
        """What will not stop a run, but its result for a task; nothing if there are no labels."""
        counts = labels_of.counts_of(self.labels)
        doubts = {task.id: [*doubts_of(task, counts.get(task.id, {}))] for task in self.tasks if counts}
        of_split = self.labels.filter(pc.equal(self.labels["split"], self.scored))
        counting = {task.id for task in measurable(self.tasks, of_split)}
        for id in doubts.keys() - counting:
            few = f"fewer than {MIN_SCORED_NOTES} labels, or one class, in {self.scored}"
            own = [doubt for doubt in doubts[id] if doubt != ONE_CLASS]  # it is in this one
            doubts[id] = [*own, f"{few}, so it is left out of the result"]
        return doubts


def doubts_of(task: Task, counts: dict[str | None, dict[str, int]]) -> Iterator[str]:
    """What will not stop a run, but its result for this task."""
    rare = [option for option in task.options if counts.get(option, {}).get("train", 0) < 2]
    if rare:
        yield f"fewer than 2 training notes of {len(rare)} of its options"
    if sum(1 for of in counts.values() if of.get("test")) < 2:
        yield ONE_CLASS
    sizes = [of.get("train", 0) for of in counts.values()]
    if max(sizes, default=0) > ONE_SIDED * sum(sizes):
        yield f"over {ONE_SIDED:.0%} of the training labels are one class"
