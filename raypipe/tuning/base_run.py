"""What the trials of a study share: runs whose steps are done once. Each trial reads them and does only what differs.

<run>/tune/<model>/base/          backbone, scorer, and relevance at all layers: done before the first trial
<run>/tune/<model>/shared/<id>/   the same for the trials that have another scorer or another relevance
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint
from raypipe.masking.requirements import needs
from raypipe.runs import driver, integrity, lock
from raypipe.runs.determinants import settings_of
from raypipe.runs.names import SCORER
from raypipe.runs.progress import Printer, only_warnings
from raypipe.runs.run import Run
from raypipe.runs.steps import RANKED
from raypipe.settings.arms import masking_of
from raypipe.settings.config import Arm, Config
from raypipe.tuning.plan import StudyPlan, configure
from raypipe.tuning.trial_tables import LABELS_ONLY

Say = Callable[[str], None]


def prepare(plan: StudyPlan, folder: Path, say: Say) -> Run:
    """The base run of a study, with all that the trials share; and what labels alone predict of the dev notes.

    Raises `InputError` before anything is trained if the dev notes cannot rank trials by AUC where the space asks it.
    """
    settings = plan.config(plan.constants, "base", str(folder))
    settings = configure(settings, {"arms": {**settings.arms, LABELS_ONLY: Arm()}})
    name = plan.backbone.name
    run = Run(settings, say=say.named(name) if isinstance(say, Printer) else lambda line: say(f"{name}: {line}")).open()
    if plan.space.measure == "auc":
        driver.make(run, ["corpus"])
        _demand_two_labels(run, plan.space.path)
    _share(run)
    driver.make(run, ["statistics", *({f"evaluate/{SCORER}"} & set(driver.shared_steps(run)))])
    driver.evaluate(run, LABELS_ONLY)
    return run


def _demand_two_labels(run: Run, space: str) -> None:
    """AUC compares notes of two labels: some task must have both among its dev notes."""
    labels = run.corpus.labels_of("dev").group_by("task_id").aggregate([("label", "count_distinct")])
    if not pc.any(pc.greater(labels["label_count_distinct"], 1)).as_py():
        what = (
            "dev_auc needs dev notes of two labels in some task: label more of them, or rank by dev_macro_f1; "
            "both are another search, under another name"
        )
        raise InputError([Problem(f"{space}: METRIC", what)])


def for_workers(base: Run) -> Run:
    """The base run as it is sent to workers: every step in the worker's own process."""
    return replace(base.inline(), say=only_warnings)


def shared_with(base: Run, settings: Config, folder: Path) -> Run:
    """The base run, if a trial with these settings has its scorer and relevance; else one beside it for all trials like
    it, made here if it is not there yet. `folder`: of the study."""
    attributed = settings_of("attribute", settings, base.inputs, base.copied)
    if base.finished("attribute", attributed) is not None:
        return base
    name = fingerprint(attributed)
    run = Run(configure(settings, {"name": name, "runs": str(folder / "shared")}), base, only_warnings).open()
    with lock.awaited(run.folder):
        _share(run)
    return run


def _share(run: Run) -> None:
    """Backbone, scorer, and the relevance of all notes if some arm needs relevance."""
    ranked = needs(masking_of(run.settings)) & RANKED
    driver.make(run, [f"finetune/{SCORER}", *(["attribute"] if ranked else [])])


def predict(run: Run, arm: str) -> list[pa.Table]:
    """Do all steps of an arm that are not done yet; its predictions of the dev notes, a table per fine-tuning."""
    driver.prepare(run)
    driver.learn(run, arm)
    driver.evaluate(run, arm)
    return [rows.read(run.needed(f"evaluate/{student}").data) for student in run.students(arm)]


def seconds_of(folder: Path) -> dict[str, float]:
    """Wall time of the steps that were done in this folder, by name, in the order in which they ended."""
    manifests = sorted(folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime)
    return {str(path.parent.relative_to(folder)): integrity.read_json(path)["seconds"] for path in manifests}
