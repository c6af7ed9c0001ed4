"""What the trials of a study share: runs whose steps are done once. Each trial reads them and does only what differs.

<run>/tune/<model>/base/          backbone, scorer, and relevance at all layers: done before the first trial
<run>/tune/<model>/shared/<id>/   the same for the trials that have another scorer or another relevance
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.hashing import fingerprint
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import IMPORTANCE, RELEVANCE, TYPE_RELEVANCE
from raypipe.runs import steps
from raypipe.runs.folder import settings_of
from raypipe.runs.run import Run
from raypipe.settings.arms import masking_of
from raypipe.settings.config import Arm, Config
from raypipe.tuning.plan import StudyPlan, configure
from raypipe.tuning.trial_tables import LABELS_ONLY

Say = Callable[[str], None]


def silent(what: str) -> None:
    """For trials: they run beside each other, and their lines of progress would mix."""


def open_run(settings: Config, base: Run | None = None, say: Say = silent) -> Run:
    """A run that reads finished steps of `base` where its settings leave them as they are."""
    run = Run(settings, base=base)
    run.say = say  # type: ignore
    return run


def prepare(plan: StudyPlan, folder: Path, say: Say) -> Run:
    """The base run of a study, with all that the trials share; and the scorer's predictions of the dev notes."""
    settings = plan.config(plan.constants, "base", str(folder))
    settings = configure(settings, {"arms": {**settings.arms, LABELS_ONLY: Arm()}})
    run = open_run(settings, say=lambda what: say(f"{plan.backbone.name}: {what}"))
    _share(run)
    steps.corpus_statistics(run)
    steps.learn(run, LABELS_ONLY)
    steps.evaluate(run, LABELS_ONLY)
    return run


def for_workers(base: Run) -> Run:
    """The base run as it is sent to workers: every step in the worker's own process."""
    run = base.inline()
    run.say = silent  # type: ignore
    return run


def shared_with(base: Run, settings: Config, folder: Path) -> Run:
    """The base run, if a trial with these settings has its scorer and relevance; else one beside it for all trials like
    it, made here if it is not there yet. `folder`: of the study."""
    attributed = settings_of("attribute", settings, base.corpus.listing)
    if base.finished("attribute", attributed) is not None:
        return base
    name = fingerprint(attributed)
    run = open_run(configure(settings, {"name": name, "runs": str(folder / "shared")}), base)
    with locked(run.folder):
        _share(run)
    return run


def _share(run: Run) -> None:
    """Backbone, scorer, and the relevance of all notes if some arm needs relevance."""
    if run.pretrains:
        steps.pretrain(run)
    steps.finetune(run)
    if needs(masking_of(run.settings)) & {RELEVANCE, TYPE_RELEVANCE, IMPORTANCE}:
        steps.attribute(run)


def predict(run: Run, arm: str) -> list[pa.Table]:
    """Do all steps of an arm that are not done yet; its predictions of the dev notes, a table per fine-tuning."""
    steps.prepare(run)
    steps.learn(run, arm)
    steps.evaluate(run, arm)
    return [pq.read_table(run.needed(f"evaluate/{student}").data) for student in run.students(arm)]


def seconds_of(folder: Path) -> dict[str, float]:
    """Wall time of the steps that were done in this folder, by name, in the order in which they ended."""
    manifests = sorted(folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime)
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text())["seconds"] for path in manifests}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time. The lock ends with its process, however that ends."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
