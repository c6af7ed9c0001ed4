"""What the probes of several models say: scores over the layers, and the layer that training chose for each."""

from __future__ import annotations

from dataclasses import dataclass

from raypipe import rows
from raypipe.evaluation.layer_scores import BestLayer, LayerScore, best_layers, layer_scores
from raypipe.evaluation.metrics import measurable, of_tasks
from raypipe.runs.names import BACKBONE, SCORER
from raypipe.runs.probing import probed_models
from raypipe.runs.run import Run
from raypipe.runs.steps import named

STAGES = {"train": "after reconstruction", "finetune": "after fine-tuning"}  # first part of a model's name
POOLINGS = {"last": "last token before the answer", "mean": "mean over the note"}
NAMES = {SCORER: "scorer (labels only)"}


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


def curves(run: Run) -> Probing | None:
    """What the finished probes of a run say; None if the backbone was not probed."""
    if not run.is_done(f"probe/{BACKBONE}"):
        return None
    steps = {model: run.of(named(f"probe/{model}").arm).step(f"probe/{model}") for model in probed_models(run)}
    tasks = measurable(run.corpus.tasks, run.corpus.labels_of(run.settings.evaluation.split))
    probed = {model: of_tasks(rows.read(step.data), tasks) for model, step in steps.items() if step.done}
    n_bootstrap, seed = run.settings.evaluation.bootstrap, run.settings.seed
    scores = layer_scores(probed, tasks, n_bootstrap, seed)
    best = best_layers(probed, scores, tasks, BACKBONE, n_bootstrap, seed)
    return Probing(run.settings.probe.head, scores, best)


def shown(student: str) -> str:
    """How a probed model is called on a page: `train/decselfmask` -> `decselfmask, after reconstruction`."""
    stage, slash, arm = student.partition("/")
    arm = NAMES.get(arm, arm)
    return f"{arm}, {STAGES.get(stage, stage)}" if slash else student
