"""One trial: a run that shares what it can with its study's base run, scored on dev. Knows nothing of Ray.

Its folder holds a run's folders and `trial.json`, which is all that the analysis reads of it beside predictions. A
trial is named by its settings, so the same settings are computed once, whoever asks again: Tune after a crash, or two
draws that came out equal.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raypipe.errors import InputError
from raypipe.evaluation import metrics, uncertainty
from raypipe.hashing import fingerprint
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import IMPORTANCE, RELEVANCE, TYPE_RELEVANCE
from raypipe.models import loading
from raypipe.runs import steps
from raypipe.runs.folder import settings_of, write_json
from raypipe.runs.run import SCORER, Run
from raypipe.settings import config
from raypipe.settings.arms import masking_of
from raypipe.stream.stages.quiet import place
from raypipe.tuning.plan import Plan, configure, identity
from raypipe.tuning.trial_tables import FAILED, FINISHED, RUNNING
from raypipe.tuning.watching import DevScore

RECORD = "trial.json"
Report = Callable[[dict[str, Any]], None]
BULKY = ("model", "adapter", "checkpoint", "data")  # folders of a finished trial's steps


class TrialError(Exception):
    """A trial failed. Says what kind of error, and where in the code; never a library's message (stages/quiet.py)."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to run the trials of one study."""

    study: str
    plan: Plan
    folder: str  # of the study
    resources: config.Resources
    reports_epochs: bool  # dev scores on the way, for a scheduler

    @property
    def trials(self) -> Path:
        """Where the trials of this study lie."""
        return Path(self.folder) / "trials"

    def settings(self, values: Mapping[str, Any]) -> config.Config:
        """The config of a trial, named by what it says."""
        found = self.plan.config(values, "trial", str(self.trials))
        found = configure(found, {"resources": self.resources})
        return configure(found, {"name": identity(found)})


def run(job: Job, base: Run, values: Mapping[str, Any], report: Report) -> None:
    """Run the trial, or tell again what it found. Failures are recorded, then raised as `TrialError`."""
    settings = job.settings(values)
    folder = job.trials / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        record = read(folder)
        if record.get("status") != FINISHED:
            attempts = record.get("attempts", 0) + 1
            record = {"study": job.study, "model": job.plan.backbone.name, "trial_id": settings.name}
            record |= {"params": dict(values), "layer": settings.attribution.layer, "status": RUNNING, "curve": []}
            record["attempts"] = attempts
            write_json(folder / RECORD, record)
            record |= _recorded(folder, record, lambda: _run(job, base, settings, record, report))
            write_json(folder / RECORD, record)
            if not settings.tune.keep_trials:
                _slim(folder)
        report({**flat(record), "is_final": True})


def read(folder: Path) -> dict[str, Any]:
    """What a trial left so far."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.exists() else {}


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a finished trial, as Tune wants them."""
    found = record["dev_macro_f1"]
    names = {"value": "dev_macro_f1", "low": "dev_macro_f1_low", "high": "dev_macro_f1_high"}
    return {names.get(key, key): value for key, value in found.items()} | {"trial_seconds": record["seconds"]}


@dataclass(frozen=True)
class Repeat:
    """A trial done again, with and without what it shares: seconds."""

    shared: float
    attributing: float  # backbone and scorer shared, relevance its own
    alone: float  # nothing shared
    same: bool  # its predictions, in all


def repeat(job: Job, base: Run, values: Mapping[str, Any], folder: str) -> Repeat:
    """The trial once more beside its base; the same with its own layer attributed for it alone; with nothing shared."""
    settings, arm = configure(job.settings(values), {"runs": folder}), job.plan.arm
    loading.load(base.model(SCORER))  # none of the three is to pay for imports
    shared = _sharing(job, base, settings)
    attributing = configure(settings, {"attribution.keep": "layer"})  # which the base has not: it keeps all
    took, found = [], []
    for own, beside in ((settings, shared), (attributing, shared), (attributing, None)):
        began = time.perf_counter()
        run = Run(own, base=beside)
        run.say = _silent  # type: ignore[method-assign]
        tables = _steps(run, arm)
        took.append(time.perf_counter() - began)
        found.append([t.sort_by([("task_id", "ascending"), ("note_id", "ascending")]) for t in tables])
        shutil.rmtree(folder)  # with the counts of words that it would leave for the next
    is_same = all(a.equals(b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    return Repeat(took[0], took[1], took[2], is_same)


def _run(job: Job, base: Run, settings: config.Config, record: dict[str, Any], report: Report) -> dict[str, Any]:
    began = time.perf_counter()
    arm, folder = job.plan.arm, job.trials / settings.name

    def on_epoch(epoch: float, value: float) -> None:
        record["curve"].append([epoch, value])
        write_json(folder / RECORD, record)
        report({"dev_macro_f1": value, "epoch": epoch, "is_final": False})

    own = Run(settings, base=_sharing(job, base, settings))
    own.say = _silent  # type: ignore[method-assign]
    own.watch = DevScore(own, arm, on_epoch) if job.reports_epochs else None
    predictions = _steps(own, arm)
    (folder / "evaluate").mkdir(exist_ok=True)
    for student, table in zip(own.students(arm), predictions, strict=True):
        pq.write_table(table, folder / "evaluate" / f"{student}.parquet", compression="zstd")
    compared = uncertainty.compare_arms({arm: predictions}, own.corpus.tasks, n_bootstrap=settings.evaluation.bootstrap)
    e = compared.arms[arm]
    aucs = [auc for table in predictions if (auc := metrics.evaluate(table, own.corpus.tasks).auc) is not None]
    found = {"value": e.value, "low": e.low, "high": e.high, "n_runs": e.n_runs, "n_tasks": e.n_tasks}
    return {
        "status": FINISHED,
        "dev_macro_f1": found,
        "dev_auc": sum(aucs) / len(aucs) if aucs else None,
        "tasks": {task: estimate.value for task, estimate in compared.tasks[arm].items()},
        "students": own.students(arm),
        "curve": [*record["curve"], [settings.finetune.epochs, e.value]],
        "steps": seconds_of(folder),
        "seconds": time.perf_counter() - began,
    }


def share(run: Run) -> None:
    """What trials read of a base run: backbone, scorer, and the notes' relevance if masking reads any."""
    if run.pretrains:
        steps.pretrain(run)
    steps.finetune(run)
    if needs(masking_of(run.settings)) & {RELEVANCE, TYPE_RELEVANCE, IMPORTANCE}:
        steps.attribute(run)


def _sharing(job: Job, base: Run, settings: config.Config) -> Run:
    """The study's base run; for a trial with another scorer or relevance, one beside it for all trials like it."""
    wanted = settings_of("attribute", settings, base.corpus.listing)
    if base.finished("attribute", wanted) is not None:
        return base
    name = fingerprint(wanted)
    run = Run(configure(settings, {"name": name, "runs": str(Path(job.folder) / "shared")}), base=base)
    run.say = _silent  # type: ignore[method-assign]
    with _alone_in(run.folder):
        share(run)
    return run


def _silent(what: str) -> None:
    """Trials run beside each other: their lines of progress would mix."""


def _steps(run: Run, arm: str) -> list[Any]:
    """All steps that this run does not share, and its predictions of the dev split."""
    steps.prepare(run)
    steps.learn(run, arm)
    steps.evaluate(run, arm)
    return [pq.read_table(run.needed(f"evaluate/{student}").data) for student in run.students(arm)]


def seconds_of(folder: Path) -> dict[str, float]:
    """Wall time of the steps that were done in this folder, by name."""
    found = sorted(folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime)
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text())["seconds"] for path in found}


def _recorded(folder: Path, record: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` finds. Its failure goes to the record, and on as a `TrialError` without any text of a note."""
    failure: Exception
    try:
        return work()
    except InputError as error:
        failure = TrialError(str(error))
    except Exception as error:
        failure = TrialError(f"{type(error).__name__} at {place(error.__traceback__)}")
    write_json(folder / RECORD, record | {"status": FAILED, "error": str(failure)})
    raise failure from None  # outside the handlers, or the original would go along as its context


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two trials with the same settings wait for each other. The lock ends with its process."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _slim(folder: Path) -> None:
    """Drop what a finished trial needs no more: weights and rows, not settings, metrics and predictions."""
    for path in [path for path in folder.rglob("*") if path.is_dir() and path.name in BULKY]:
        shutil.rmtree(path, ignore_errors=True)
