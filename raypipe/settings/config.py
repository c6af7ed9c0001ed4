"""Every setting of a run: `Config`, made of one frozen section per part of the work (sections/).

`Config` lists first the sections of a run, in the order in which a note meets them; then those of single commands
(`faithfulness`, `probe`, `canaries`, `compare`, `tune`); last the cluster. This module has the names of all sections.

The string under a key is its description: `docs/settings.md` is generated from it (reference.py). *Paper* and *code*
mark a value or a behaviour of the authors (arXiv 2606.09466 and its repository; for other methods, of the source that
is named); *ours* marks a deviation. All other defaults are ours.

Imports neither torch nor ray, so that a config can be checked on a laptop. Unknown keys are refused; `configfile.load`
turns a YAML file into a `Config` and reports every problem at once, with file, line and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from raypipe.settings.sections.arms import Arm, PseudoLabels
from raypipe.settings.sections.attribution import Attribution
from raypipe.settings.sections.data import Columns, Data, LabelColumns, Splitting, Synthetic
from raypipe.settings.sections.evaluation import Canaries, Conformal, Evaluation, Faithfulness, Probe
from raypipe.settings.sections.many_runs import ArmComparison, Tune
from raypipe.settings.sections.masking import (
    CorpusStatistics,
    DifferenceMasking,
    Hysteresis,
    Masking,
    Mslm,
    Pmi,
    Selective,
    SpanLengths,
)
from raypipe.settings.sections.model import Model, Prompt
from raypipe.settings.sections.resources import Resources
from raypipe.settings.sections.tracking import Tracking
from raypipe.settings.sections.training import Candidates, Finetuning, Lora, Pretrain, Scorer, Training
from raypipe.settings.sections.values import LocalPath, Name, Section

__all__ = [
    "Arm", "ArmComparison", "Attribution", "Canaries", "Candidates", "Columns", "Config", "Conformal",
    "CorpusStatistics", "Data", "DifferenceMasking", "Evaluation", "Faithfulness", "Finetuning", "Hysteresis",
    "LabelColumns", "Lora", "Masking", "Model", "Mslm", "Pmi", "Pretrain", "Probe", "Prompt", "PseudoLabels",
    "Resources", "Scorer", "Selective", "SpanLengths", "Splitting", "Synthetic", "Tracking", "Training", "Tune"
]  # fmt: skip


def _laid_over(base: Any, section: Any) -> Any:
    """A section with the keys of `base` that it lacks, and so for the sections within, such as `lora`."""
    if not isinstance(section, dict) or not isinstance(base, dict):
        return section
    return base | {key: _laid_over(base.get(key), value) for key, value in section.items()}


def _inherited(sections: Mapping[str, Any], base: Any) -> dict[str, Any]:
    """Training sections as written, each with the keys of `base`, as written, that it lacks."""
    base = base.model_dump() if isinstance(base, Training) else base
    return {name: _laid_over(base, section) for name, section in sections.items()}


class Config(Section):
    """A whole run. Its resolved form is written to `<run>/config.yaml`."""

    name: Name = "run"
    """Name of the run, and of its folder."""
    runs: LocalPath = "runs"
    """Folder that holds the folders of all runs: a path that all nodes share, no URI."""
    seed: int = 0
    """Seed of everything random that has no seed of its own: sampled tasks, masks, resampling."""
    data: Data = Data()
    prompt: Prompt = Prompt()
    model: Model = Model()
    pretrain: Pretrain | None = None
    """The backbone from scratch, with `model.path: pretrain`."""
    finetune: Training = Training()
    """Training on labels: of each student after reconstruction, and of the scorer unless it has settings of its own."""
    scorer: Scorer = Scorer()
    attribution: Attribution = Attribution()
    statistics: CorpusStatistics = CorpusStatistics()
    arms: dict[Name, Arm] = {"sft": Arm(), "decselfmask": Arm(masking=Masking())}
    """The lines of the comparison, by name."""
    train: Training = Training()
    """Training of each student on masked notes (reconstruction) or on pseudo-labels."""
    repeats: int = Field(1, ge=1)
    """Fine-tunings of each student, which differ in the order of the rows and in new parameters."""
    evaluation: Evaluation = Evaluation()
    faithfulness: Faithfulness = Faithfulness()
    probe: Probe = Probe()
    canaries: Canaries = Canaries()
    comparison: ArmComparison = ArmComparison()
    tune: Tune = Tune()
    tracking: Tracking = Tracking()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as null in YAML; it means the defaults."""
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values

    @model_validator(mode="before")
    @classmethod
    def _like_sections(cls, values: Any) -> Any:
        """Keys that other fine-tunings lack are those of `finetune`; keys that an arm's training lacks, of `train`."""
        if not isinstance(values, dict):
            return values
        finetune, train = values.get("finetune"), values.get("train")
        if isinstance(scorer := values.get("scorer"), dict):
            values = values | {"scorer": scorer | _inherited({"training": scorer.get("training")}, finetune)}
        comparison = values.get("comparison")
        if isinstance(comparison, dict) and isinstance(others := comparison.get("finetunings"), dict):
            values = values | {"comparison": comparison | {"finetunings": _inherited(others, finetune)}}
        if isinstance(arms := values.get("arms"), dict):
            own = {
                name: arm | _inherited({"train": arm["train"]}, train)
                for name, arm in arms.items()
                if isinstance(arm, dict) and "train" in arm
            }
            values = values | {"arms": arms | own}
        return values

    @property
    def needs_hub(self) -> bool:
        """Does it name a model of the hub? Otherwise no step opens a connection for a model."""
        path = self.model.path
        return (path != "pretrain" and not Path(path).is_dir()) or any("@" in model for model in self.tune.models)

    @property
    def scorer_training(self) -> Training:
        """How the scorer is fine-tuned, unless it is untuned."""
        return self.scorer.training or self.finetune

    def training_of(self, arm: str) -> Training:
        """How the arm learns from unlabelled notes; without a training of its own, as all arms do."""
        return (self.arms[arm].train if arm in self.arms else None) or self.train

    @property
    def scorer_is_a_student(self) -> bool:
        """Is the scorer what labels alone make of the backbone, with the fine-tuning of every student?"""
        return not self.scorer.untuned and self.scorer_training == self.finetune
