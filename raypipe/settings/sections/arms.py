"""The arms of a comparison: how each student learns from unlabelled notes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raypipe.settings.sections.attribution import Attribution
from raypipe.settings.sections.masking import Masking
from raypipe.settings.sections.training import Training
from raypipe.settings.sections.values import Section


class PseudoLabels(Section):
    """The scorer answers the tasks of unlabelled notes, and the student learns the answers that it is sure of (ours).

    The paper compares with synthetic labels, but its recipe is not public; this is the usual one.
    """

    confidence: float = Field(0.9, gt=0, lt=1)
    """Least probability of the chosen option, among the options."""
    max_imbalance: float | None = Field(3.0, ge=1)
    """Most answers of a class, as a multiple of the answers of the task's rarest class. None: no limit."""


class Arm(Section):
    """One line of the comparison: how the student learns from unlabelled notes before it sees the labels."""

    masking: Masking | None = None
    """Reconstruct masked notes. None: no reconstruction."""
    pseudo_labels: PseudoLabels | None = None
    """Instead of masking: learn the scorer's own answers."""
    attribution: Attribution | None = None
    """Relevance of the arm's own, instead of the section `attribution` that all arms share."""
    train: Training | None = None
    """Training of the arm's own on masked notes or pseudo-labels. Keys that are not given are those of `train`; LoRA or
    all weights is for all arms to share, as it decides what stands for hidden words. None: that of `train`."""
    label_share: float = Field(0.0, ge=0, lt=1)
    """Share of the rows of this stage that are labelled fine-tuning rows; masked and labelled rows take turns. Labelled
    rows are added to the others, so without `max_steps` the stage takes more steps."""
    start: Literal["backbone", "random"] = "backbone"
    """`random`: the same architecture with untrained weights, as a control."""
    finetune: bool = True
    """False: the backbone answers as it is (zero-shot)."""

    @property
    def reconstructs(self) -> bool:
        """Does the student learn from unlabelled notes before it sees the labels?"""
        return self.masking is not None or self.pseudo_labels is not None

    @model_validator(mode="after")
    def _one_way(self) -> Arm:
        if self.masking is not None and self.pseudo_labels is not None:
            raise ValueError("has both masking and pseudo_labels: make two arms of it")
        if self.label_share and not self.reconstructs:
            raise ValueError("label_share needs masking or pseudo_labels: there is nothing to mix labels with")
        if self.train is not None and not self.reconstructs:
            raise ValueError(
                "a train of its own needs masking or pseudo_labels: there is nothing to learn before the labels"
            )
        if self.attribution is not None and (self.masking is None or self.masking.match_ratio_to is not None):
            raise ValueError("an arm with an attribution of its own needs masking, with a ratio of its own, too")
        if not self.finetune and (self.masking or self.pseudo_labels or self.start == "random"):
            raise ValueError("finetune: false is for an arm that has nothing else: the backbone as it is")
        return self
