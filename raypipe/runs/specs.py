"""What each training step trains: rows, start and settings. The driver runs consecutive ones on one set of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypipe.runs.names import LABELS, SCORER, TEXT
from raypipe.settings import config
from raypipe.training import trainer

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run


def pretraining(run: Run, folder: StepFolder, _: str) -> trainer.TrainingSpec:
    """A small decoder from scratch on plain notes."""
    architecture = run.settings.pretrain
    assert architecture is not None  # noqa: S101 (its rows were made from it)
    rows = str(run.needed("pretrain/rows").data)
    return trainer.TrainingSpec(
        str(folder.path), rows, TEXT, architecture.training, architecture, run.tokenizer, random_weights=True
    )


def finetuning(run: Run, folder: StepFolder, student: str) -> trainer.TrainingSpec:
    """Supervised fine-tuning: of the backbone (the scorer), or of an arm's student after reconstruction."""
    arm, _, repeat = (student or SCORER).partition("@")
    rows, of_run = run.needed("finetune/rows").output, run.settings
    settings = of_run.finetune if student else of_run.scorer_training
    return trainer.TrainingSpec(
        folder=str(folder.path),
        rows=str(rows / "train"),
        arm=LABELS,
        training=settings.model_copy(update={"seed": settings.seed + int(repeat or 0)}),
        start=run.model(arm, "train") if run.reconstructs(arm) else run.backbone,
        tokenizer=run.tokenizer,
        random_weights=not run.reconstructs(arm) and run.settings.arms.get(arm, config.Arm()).start == "random",
        dev_rows=str(rows / "dev") if run.corpus.has_dev else None,
    )


def reconstruction(run: Run, folder: StepFolder, arm: str) -> trainer.TrainingSpec:
    """The arm's student learns to fill in what its masking hid, or the scorer's answers."""
    settings = run.settings.arms[arm]
    rows = run.needed("pseudo" if settings.masking is None else "train/rows").data
    labelled = str(run.needed("finetune/rows").output / "train") if settings.label_share else ""
    return trainer.TrainingSpec(
        folder=str(folder.path),
        rows=str(rows),
        arm=arm,
        training=run.settings.training_of(arm),
        start=run.backbone,
        tokenizer=run.tokenizer,
        random_weights=settings.start == "random",
        mixed=trainer.Mixed(labelled, LABELS, settings.label_share) if labelled else None,
    )
