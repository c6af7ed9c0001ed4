"""One trial: a run that shares what it can with its study's base run, scored on dev. Imports nothing of Ray.

Its folder holds a run's folders and `trial.json`, which is all that the analysis reads of it beside predictions. A
trial is named by its settings, so the same settings are computed once, even if they come again: from Tune after a
crash, or as two draws that came out equal.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe import rows
from raypipe.errors import InputError, Problem, QuietError
from raypipe.evaluation import metrics, uncertainty
from raypipe.evaluation.metrics import Metrics
from raypipe.guard.quiet import without_text
from raypipe.records import forget_halves, json_of, write_json
from raypipe.runs import integrity, lock
from raypipe.runs.dev_score import DevScore
from raypipe.runs.progress import only_warnings
from raypipe.runs.run import Run
from raypipe.settings.config import Config, Resources
from raypipe.tuning import base_run
from raypipe.tuning.plan import StudyPlan, configure, identity
from raypipe.tuning.space import Space
from raypipe.tuning.trial_tables import FAILED, FINISHED, RUNNING, score_columns

RECORD = "trial.json"
Record = dict[str, Any]
Report = Callable[[Record], None]  # what a trial tells Tune
BULKY = ("model", "adapter", "checkpoint", "data")  # folders of a finished trial's steps


class TrialError(QuietError):
    """A trial failed. Says what kind of error, and where in the code; never a library's message (guard/quiet.py)."""


@dataclass(frozen=True)
class StudyContext:
    """What a worker needs to run any trial of one study, beside the base run."""

    study: str
    plan: StudyPlan
    folder: str  # of the study
    resources: Resources
    reports_epochs: bool  # dev scores after each epoch, for a scheduler or a stopper

    def settings(self, values: Mapping[str, Any]) -> Config:
        """The config of the trial with these values of the searched keys; its name says what it is."""
        config = self.plan.config(values, "trial", str(Path(self.folder) / "trials"))
        config = configure(config, {"resources": self.resources})
        return configure(config, {"name": identity(config)})

    def trial_folder(self, values: Mapping[str, Any]) -> Path:
        """Where that trial lies."""
        return Path(self.folder) / "trials" / self.settings(values).name

    def new_record(self, values: Mapping[str, Any]) -> Record:
        """What is true of a trial before it runs."""
        names = {"study": self.study, "model": self.plan.backbone.name, "trial_id": self.trial_folder(values).name}
        return {**names, "params": dict(values)}


def run(context: StudyContext, base: Run, values: Mapping[str, Any], report: Report) -> None:
    """Run the trial, or only report it if it is finished. A failure is recorded, then raised as `TrialError`."""
    folder = context.trial_folder(values)
    folder.mkdir(parents=True, exist_ok=True)
    with lock.awaited(folder):
        forget_halves(folder)
        record = read(folder)
        if record.get("status") != FINISHED:
            attempts, layer = record.get("attempts", 0) + 1, context.settings(values).attribution.layer
            record = {
                **context.new_record(values),
                "layer": layer,
                "status": RUNNING,
                "curve": [],
                "attempts": attempts,
            }
            write(folder, record)
            record |= _outcome(folder, record, lambda: _run(context, base, values, record, report))
            write(folder, record)
        _drop_bulky(folder)  # also what a trial left that was killed here
        report({**score_columns(record), "trial_seconds": record["seconds"], "is_final": True})


def read(folder: Path) -> Record:
    """The record that a trial left so far; empty if there is none."""
    path = folder / RECORD
    return json_of(path) if path.exists() else {}


def write(folder: Path, record: Record) -> None:
    """Keep a trial's record in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record)


def _run(context: StudyContext, base: Run, values: Mapping[str, Any], record: Record, report: Report) -> Record:
    """All steps of the trial and its score, as what is added to its record."""
    began = time.perf_counter()
    arm, space, settings = context.plan.arm, context.plan.space, context.settings(values)

    def on_epoch(epoch: float, scores: Metrics) -> None:
        record["curve"].append([epoch, _value([scores], space)])
        write(own.folder, record)
        of_epoch = {"dev_macro_f1": scores.macro_f1} | ({} if scores.auc is None else {"dev_auc": scores.auc})
        report({**of_epoch, "epoch": epoch, "is_final": False})

    own = Run(settings, base_run.shared_with(base, settings, Path(context.folder)), only_warnings).open()
    if context.reports_epochs:
        own.watch = DevScore(own, own.students(arm)[0], on_epoch, with_last=False)
    predictions = base_run.predict(own, arm)
    (own.folder / "evaluate").mkdir(exist_ok=True)
    for student, table in zip(own.students(arm), predictions, strict=True):
        rows.write(table, own.folder / "evaluate" / f"{student}.parquet")
    compared = uncertainty.compare_arms({arm: predictions}, own.corpus.tasks, n_bootstrap=settings.evaluation.bootstrap)
    e = compared.arms[arm]
    scores = [metrics.evaluate(table, own.corpus.tasks) for table in predictions]
    aucs = [score.auc for score in scores if score.auc is not None]
    return {
        "status": FINISHED,
        "dev_macro_f1": {"value": e.value, "low": e.low, "high": e.high, "n_runs": e.n_runs, "n_tasks": e.n_tasks},
        "dev_auc": sum(aucs) / len(aucs) if aucs else None,
        "tasks": {task: estimate.value for task, estimate in compared.tasks[arm].items()},
        "students": own.students(arm),
        "curve": [*record["curve"], [_epochs(own, arm), _value(scores, space)]],
        "steps": base_run.seconds_of(own.folder),
        "seconds": time.perf_counter() - began,
    }


def _epochs(run: Run, arm: str) -> float:
    """Passes over the labels that its fine-tuning took."""
    if run.settings.finetune.max_steps is None:
        return run.settings.finetune.epochs
    last = (run.step(f"finetune/{run.students(arm)[0]}").path / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(last).get("epoch", run.settings.finetune.epochs))


def _value(scores: Sequence[Metrics], space: Space) -> float:
    """What ranks the trial, as the mean over its fine-tunings. Without such a number the trial fails, and it alone."""
    values = [getattr(score, space.measure) for score in scores]
    if not all(value is not None and math.isfinite(value) for value in values):
        raise InputError([Problem(space.metric, "is no number: the training diverged; try lower learning rates")])
    return float(sum(values)) / len(values)


def _outcome(folder: Path, record: Record, work: Callable[[], Record]) -> Record:
    """What `work` returns. Its failure goes to the record, and on as a `TrialError` without any text of a note."""
    failure: Exception
    try:
        return work()
    except Exception as error:
        failure = TrialError(str(without_text(error)))
    write(folder, record | {"status": FAILED, "error": str(failure)})
    raise failure from None  # outside the handlers, or the original would go along as its context


def _drop_bulky(folder: Path) -> None:
    """Delete weights and rows of a finished trial. Settings, metrics and predictions stay."""
    for step in integrity.finished(folder):
        integrity.drop(step, *BULKY)
    for path in [path for path in folder.rglob("*") if path.is_dir() and path.name in BULKY]:
        shutil.rmtree(path, ignore_errors=True)


def forget_steps(folder: Path) -> None:
    """Delete all steps of a trial that was stopped: it will not go on, and its notes and weights are of no more use."""
    for path in [path for path in folder.iterdir() if path.is_dir()]:
        shutil.rmtree(path, ignore_errors=True)
