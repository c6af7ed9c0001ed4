"""Other fine-tunings of the students of a comparison's cell: scorer, masks and reconstructions are the cell's own.

Where epochs and rate are to be chosen, each candidate fine-tunes labels alone and is scored on dev; the best one by
macro F1 then serves all arms, so that the baseline is as strong as its labels can make it:

    cells/seed0-all-tuned/choose/epochs4-rate0.001/   a candidate
    cells/seed0-all-tuned/                            all arms with the chosen one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypipe import rows
from raypipe.evaluation import metrics
from raypipe.runs import integrity
from raypipe.runs.folder import State
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.training.loop import DIVERGED


def finetuned(cell: Run, training: config.Training, name: str, base: Run | None = None) -> Run:
    """The run of the cell's students with another fine-tuning. `base`: a run that may have made some of it already."""
    scorer = cell.settings.scorer
    if not scorer.untuned:
        scorer = config.Scorer(training=cell.settings.scorer_training)
    own = {"name": name, "finetune": training, "scorer": scorer}
    return Run(cell.settings.model_copy(update=own), base or cell, cell.say)


def candidates(cell: Run, trainings: Sequence[config.Training], name: str, arm: str) -> list[Run]:
    """For each training a run of the labels-only `arm` alone, scored on dev; trainings that come to the same, once."""
    runs = (_candidate(cell, training, name, arm) for training in trainings)
    return list({run.folder: run for run in runs}.values())


def _candidate(cell: Run, training: config.Training, name: str, arm: str) -> Run:
    run = finetuned(cell, training, f"epochs{training.epochs:g}-rate{training.learning_rate:g}")
    on_dev = {"split": "dev", "conformal": None, "embeddings": False}
    run.settings = run.settings.model_copy(
        update={
            "runs": str(Path(cell.settings.runs) / name / "choose"),
            "arms": {arm: cell.settings.arms[arm]},
            "repeats": 1,
            "evaluation": cell.settings.evaluation.model_copy(update=on_dev),
        }
    )
    return run


def chosen(tried: Sequence[Run]) -> Run | None:
    """The candidate with the best macro F1 on dev, the first of equals; None while some are not measured.

    One that diverged is not chosen. None, too, if all did.
    """
    tried = [run for run in tried if not has_diverged(run)]
    steps = [run.step(f"evaluate/{_student(run)}") for run in tried]
    if not steps or not all(step.done for step in steps):
        return None
    scores = [metrics.evaluate(rows.read(step.data), tried[0].corpus.tasks).macro_f1 for step in steps]
    return tried[scores.index(max(scores))]


def has_diverged(run: Run) -> bool:
    """Did the candidate's training, with the settings of now, end without a student?"""
    step = run.step(f"finetune/{_student(run)}")
    return step.state is State.UNFINISHED and (step.path / DIVERGED).exists()


def _student(run: Run) -> str:
    """The only student of a candidate."""
    (arm,) = run.settings.arms
    return run.student_of(arm)


def drop_models(tried: Sequence[Run], but: Run) -> None:
    """Delete the models of the candidates that were not chosen; their predictions stay."""
    for run in tried:
        if run.folder != but.folder:
            integrity.drop(run.folder / "finetune" / _student(run), "model")
