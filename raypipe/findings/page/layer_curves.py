"""What the probes of several students found: curves over the layers, and one line per student."""

from __future__ import annotations

from dataclasses import dataclass

from raypipe.evaluation.layer_scores import BestLayer, LayerScore

BACKBONE = "backbone"
POOLINGS = {"last": "last token before the answer", "mean": "mean over the note"}
STAGES = {"train": "after reconstruction", "finetune": "after fine-tuning"}  # first part of a student's name

NAMES = {"scorer": "scorer (labels only)"}


@dataclass(frozen=True)
class Probing:
    """Of one run. Students are called `backbone`, `train/<arm>` or `finetune/<arm>`."""

    head: str
    scores: tuple[LayerScore, ...]
    best: tuple[BestLayer, ...]  # in the order in which students are shown

    @property
    def students(self) -> list[str]:
        """All names, the backbone first if it is there."""
        return list(dict.fromkeys(score.student for score in self.scores))

    @property
    def poolings(self) -> list[str]:
        """Those that were probed."""
        return list(dict.fromkeys(score.pooling for score in self.scores))

    @property
    def stages(self) -> list[str]:
        """Keys of STAGES that some student has."""
        return [stage for stage in STAGES if any(name.startswith(f"{stage}/") for name in self.students)]

    def curve(self, student: str, pooling: str) -> list[LayerScore]:
        """By layer."""
        return [score for score in self.scores if (score.student, score.pooling) == (student, pooling)]


def shown(student: str) -> str:
    """`train/decselfmask` -> `decselfmask, after reconstruction`."""
    stage, slash, arm = student.partition("/")
    arm = NAMES.get(arm, arm)
    return f"{arm}, {STAGES.get(stage, stage)}" if slash else student
