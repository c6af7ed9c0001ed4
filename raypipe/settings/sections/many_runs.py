"""Commands that make many runs of one config: `compare` and `tune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from raypipe.settings.sections.training import Finetuning
from raypipe.settings.sections.values import Name, Section, no_credential


class ArmComparison(Section):
    """`raypipe compare`: the arms, repeated over seeds and label budgets (runs/compare.py)."""

    seeds: int = Field(3, ge=1)
    """Repetitions, each with its own subset of the labels, scorer, masks, reconstruction and `repeats` fine-tunings."""
    budgets: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Training labels per task, each measured beside `data.max_labelled`."""
    pairs: tuple[tuple[Name, Name], ...] = ()
    """Pairs (arm, reference) that are tested beside each arm against the first."""
    finetunings: dict[Name, Finetuning] = {}
    """Other fine-tunings, by name, measured beside `finetune`: each starts from the same reconstructed students, with
    the same scorer."""
    seeds_in_tasks: bool = False
    """True: each seed makes its scorer and masks in one process, side by side with the others; for notes that one
    process reads in minutes. False: one seed after the other, each on the whole cluster."""


class Tune(Section):
    """`raypipe tune`: a search over settings (tuning/). What is searched stands in a file of tune_spaces/."""

    models: tuple[Annotated[str, AfterValidator(no_credential)], ...] = ()
    """Backbones, each a study of its own: a local folder, a hub id with its commit (`id@<40 hex digits>`) or
    `pretrain:<family>`. Empty: that of the section `model`."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Most notes that trials learn from. None: `data.max_unlabelled`."""
    max_trials: int = Field(1000, ge=1)
    """Most trials that a study may have. A search of more is refused before it starts: grids multiply."""
    concurrent_trials: int | Literal["auto"] = "auto"
    """Trials that run at once. `auto`: as many as the cores or the shares of the GPUs allow."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """CPUs of each trial."""
    gpus_per_trial: float = Field(1.0, gt=0)
    """GPUs of each trial, if the cluster has any. Less than 1: trials share a GPU."""
    max_failures: int = Field(1, ge=0)
    """How often a failed trial is tried again."""
