"""The steps of a run: one table. What is done, made, resumed and reported is read from it (driver.py, run.py).

To add a step, write the function that makes it and one entry here. Where each step's output lands:

    runs/<name>/
      config.yaml                       the settings of the last command
      lock.json                         while a command writes here
      corpus/                           tasks, labels and labelled notes in use (and the generated notes of the demo)
      pretrain/                         tokenizer/ rows/ model/ metrics.jsonl
      finetune/rows/ finetune/scorer/   model/ metrics.jsonl; no scorer/ if it is untuned
      statistics/                       words and runs of words of the corpus, where an arm asks for them
      faithfulness/                     report.html metrics.json table.csv table.txt
      attribute/ mask/                  data/*.parquet: relevance; relevance and masking plans, one row per note
      answer/ pseudo/                   data/*.parquet: the scorer's own answers; the sure ones as an arm's rows
      train/rows/ train/<arm>/          model/ metrics.jsonl
      finetune/<student>/               model/ metrics.jsonl; an arm's students are <arm>, <arm>@1, <arm>@2, ...
      evaluate/<student>/               data/*.parquet: predictions
      calibrate/<student>/              data/*.parquet: predictions on dev, for evaluation.conformal
      states/<model>/ probe/<model>/    data/*.parquet: states of all layers; what classifiers on them answer
      planted/                          notes with made-up secrets, and which secret is in which note
      canaries/                         a run of its own that learns from those notes
        exposure/<model>/               data/*.parquet: what a model knows of each secret
      variants/<arm>/                   a run of its own for an arm with another attribution
      cells/<seed>-<labels>/            a run of its own for each seed and label budget of a comparison
      report/                           report.html metrics.json model-cards/<arm>.md
    runs/.cache/statistics/             counts of a corpus, by fingerprint: shared by all runs in this folder
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raypipe.masking.corpus_needs import corpus_needs
from raypipe.masking.requirements import needs
from raypipe.masking.strategy import IMPORTANCE, RELEVANCE, TYPE_RELEVANCE
from raypipe.runs import canaries, collect, faithfulness, making, of_arms, probing, specs, speed
from raypipe.runs.names import BACKBONE, SCORER
from raypipe.settings.arms import masking_of, pseudo_of
from raypipe.settings.config import Arm, Config

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run
    from raypipe.runs.speed import Speed
    from raypipe.training.trainer import TrainingSpec

    Names = Sequence[str] | Callable[[Config, Arm], Sequence[str]]


@dataclass(frozen=True)
class Step:
    """One kind of step. Where a field is a function, it gets the run's config and the arm whose step it is."""

    name: str  # its folder; {arm} and {student} stand for each arm, and for each of its students
    # Makes the output: (run, folder, student) -> facts for the manifest. Of `train`, the driver does the training
    make: Callable[[Run, StepFolder, str], dict[str, Any]] | None = None
    train: Callable[[Run, StepFolder, str], TrainingSpec] | None = None
    settings: Sequence[str] | Callable[[Config], Sequence[str]] = ()  # config sections (or keys) that it reads
    after: Names = ()  # the steps that its output is made from
    needs: Names | None = None  # the steps that must be finished before it is made, where these are not `after`
    arms: Callable[[Config], dict[str, Any]] | None = None  # of a step for all arms: what of them its output depends on
    is_used: Callable[[Config, Arm], bool] = lambda config, arm: True  # has this config any use for it?
    in_job: bool | Callable[[Config], bool] = True  # does `raypipe run` make it, or only who asks for it?
    command: str | None = None  # the command that makes it; None: whichever command needs it
    of_variants: bool = True  # of the run: has an arm with an attribution of its own such a step of its own, too?
    beside: Callable[[Config], dict[str, Any]] | None = None  # what its output depends on beside sections and files
    rows: Callable[[Run], int | None] | None = None  # that it writes, about: for progress; None: it writes none, or few
    unit: str = "notes"  # what a row is
    speed: Callable[[Run], Speed | None] | None = None  # what else to say while its rows appear
    before_renewal: Callable[[Run, StepFolder], None] | None = None  # called before its output is made again

    @property
    def per(self) -> str:
        """What there is one of: the run, each arm, or each student of an arm."""
        return "arm" if "{arm}" in self.name else "student" if "{student}" in self.name else "run"

    def inputs(self, config: Config, arm: Arm) -> list[str]:
        """Names of the steps that must be finished before this one is made; placeholders are not filled in."""
        names = self.after if self.needs is None else self.needs
        return list(names(config, arm) if callable(names) else names)

    def made_from(self, config: Config, arm: Arm) -> list[str]:
        """Names of the steps on which this one's output depends; placeholders are not filled in."""
        return list(self.after(config, arm) if callable(self.after) else self.after)

    def sections(self, config: Config) -> set[str]:
        """Config sections or keys that this step itself reads."""
        return set(self.settings(config) if callable(self.settings) else self.settings)

    def is_in_job(self, config: Config) -> bool:
        """Is it part of the whole job?"""
        return self.in_job(config) if callable(self.in_job) else self.in_job


RANKED = {RELEVANCE, TYPE_RELEVANCE, IMPORTANCE}  # what the scorer must say before words can be masked
_STATES = ("prompt", "model", "evaluation.split", "probe.layers")
_HEAD = ("probe.head", "probe.c", "probe.folds", "seed")
_ASKED = ("prompt", "model", "canaries")
_PROBE = ("probe.pooling", "probe.control", *_HEAD)


def _of_scorer(config: Config) -> str:
    """The step that leaves the scorer."""
    return "pretrain" if config.scorer.untuned else f"finetune/{SCORER}"


def _behind_scorer(config: Config, _: Arm) -> list[str]:
    return ["corpus", _of_scorer(config)]


def _scorer_in_job(config: Config) -> bool:
    """Is the scorer a student, or does some arm need its relevance or its answers?"""
    is_read = bool(needs(masking_of(config)) & RANKED) or bool(pseudo_of(config))
    return config.scorer_is_a_student or is_read


def scorer_is_measured(config: Config) -> bool:
    """Is the scorer evaluated by itself? Not if it is a student, which is evaluated anyway."""
    return _scorer_in_job(config) and not config.scorer.untuned and not config.scorer_is_a_student


def _before_masking(config: Config, _: Arm) -> list[str]:
    """Relevance is computed in the same stream as the masks, unless it is stored already: the scorer must be there."""
    ranked = bool(needs(masking_of(config)) & RANKED)
    return ["corpus", *([_of_scorer(config)] if ranked else []), "statistics"]


def _before_statistics(config: Config, _: Arm) -> list[str]:
    asks = corpus_needs(masking_of(config)).needs
    scorer = [_of_scorer(config)] if IMPORTANCE in asks else []
    return ["corpus", "pretrain", *scorer, *(["attribute"] if TYPE_RELEVANCE in asks else [])]


def _behind_statistics(config: Config, _: Arm) -> list[str]:
    says_relevance = corpus_needs(masking_of(config)).needs & {TYPE_RELEVANCE, IMPORTANCE}
    return ["corpus", "pretrain", *(["attribute"] if says_relevance else [])]


def _behind_training(_: Config, arm: Arm) -> list[str]:
    return ["train/rows" if arm.pseudo_labels is None else "pseudo", *(["finetune/rows"] if arm.label_share else [])]


def _behind_finetuning(_: Config, arm: Arm) -> list[str]:
    return ["finetune/rows", "train/{arm}" if arm.reconstructs else "pretrain"]


def _behind_scoring(_: Config, arm: Arm) -> list[str]:
    return ["finetune/{student}"] if arm.finetune else ["finetune/rows", "pretrain"]  # zero-shot: the backbone as it is


def _before_scoring(_: Config, arm: Arm) -> list[str]:
    return ["finetune/{student}"] if arm.finetune else ["corpus", "pretrain"]


def _scoring(*sections: str) -> Callable[[Config], Sequence[str]]:
    return lambda config: (*sections, *(_HEAD if config.evaluation.mode == "head" else ()))


def _asks_embeddings(config: Config) -> bool:
    return config.evaluation.embeddings


STEPS: tuple[Step, ...] = (
    Step("corpus", collect.make_corpus, settings=("data",)),
    Step("pretrain/rows", making.pretraining_rows, settings=("pretrain", "notes"), needs=("corpus",),
         rows=making.unknown,
         is_used=lambda config, _: config.model.path == "pretrain"),
    Step("pretrain", train=specs.pretraining, after=("pretrain/rows",), command="pretrain",
         is_used=lambda config, _: config.model.path == "pretrain"),
    Step("finetune/rows", making.finetuning_rows, settings=("prompt", "model"), after=("corpus", "pretrain/rows")),
    Step(f"finetune/{SCORER}", train=specs.finetuning, settings=("scorer",), after=("finetune/rows", "pretrain"),
         is_used=lambda config, _: not config.scorer.untuned, in_job=_scorer_in_job, command="finetune"),
    Step("attribute", making.attribute, settings=("scorer", "attribution", "prompt", "seed"),
         after=_behind_scorer, in_job=False, command="attribute", rows=making.n_notes, speed=speed.of_attribution),
    Step("faithfulness", faithfulness.measure, settings=("scorer", "faithfulness", "attribution", "prompt", "seed"),
         after=_behind_scorer, in_job=False, command="faithfulness", of_variants=False),
    Step("statistics", making.statistics, settings=("statistics", "model"), after=_behind_statistics,
         needs=_before_statistics, is_used=lambda config, _: bool(corpus_needs(masking_of(config)).needs),
         beside=making.asked_of_the_corpus),
    Step("mask", making.mask, settings=("attribution.layer",), after=("attribute", "statistics"),
         needs=_before_masking, arms=of_arms.masks, is_used=lambda config, _: bool(masking_of(config)), command="mask",
         before_renewal=making.keep_relevance, rows=making.n_notes, speed=speed.of_masking),
    Step("train/rows", making.masked_rows, settings=("train.lora",), after=("mask",),
         needs=("mask", "pretrain/rows"), is_used=lambda config, _: bool(masking_of(config)),
         rows=making.n_notes),
    Step("answer", making.answer, settings=("scorer", "prompt", "evaluation.batch_tokens"),
         after=_behind_scorer, is_used=lambda config, _: bool(pseudo_of(config)), rows=making.n_notes),
    Step("pseudo", making.pseudo_rows, after=("answer",), arms=of_arms.pseudo_labels,
         is_used=lambda config, _: bool(pseudo_of(config))),
    Step("train/{arm}", train=specs.reconstruction, settings=("train",), after=_behind_training,
         is_used=lambda _, arm: arm.reconstructs, command="train"),
    Step("finetune/{student}", train=specs.finetuning, settings=("finetune",), after=_behind_finetuning,
         is_used=lambda _, arm: arm.finetune, command="finetune"),
    Step(f"evaluate/{SCORER}", making.evaluate, settings=_scoring("evaluation.split", "evaluation.mode"),
         after=(f"finetune/{SCORER}",), in_job=scorer_is_measured, command="evaluate", of_variants=False,
         rows=making.n_answers, unit="answers"),
    Step("evaluate/{student}", making.evaluate, settings=_scoring("evaluation.split", "evaluation.mode"),
         after=_behind_scoring, needs=_before_scoring, command="evaluate",
         rows=making.n_answers, unit="answers"),
    Step("calibrate/{student}", making.calibrate, settings=_scoring("evaluation.mode"), after=_behind_scoring,
         needs=_before_scoring, is_used=lambda config, _: config.evaluation.conformal is not None, command="evaluate"),
    Step(f"states/{BACKBONE}", probing.states, settings=_STATES, after=("corpus", "pretrain"), in_job=False,
         rows=making.unknown),
    Step("states/train/{arm}", probing.states, settings=_STATES, after=("train/{arm}",), in_job=False,
         rows=making.unknown),
    Step("states/finetune/{student}", probing.states, settings=_STATES, after=("finetune/{student}",), in_job=False,
         rows=making.unknown),
    Step(f"probe/{BACKBONE}", probing.probe, settings=_PROBE, after=(f"states/{BACKBONE}",), in_job=_asks_embeddings),
    Step("probe/train/{arm}", probing.probe, settings=_PROBE, after=("states/train/{arm}",), in_job=False),
    Step("probe/finetune/{student}", probing.probe, settings=_PROBE, after=("states/finetune/{student}",),
         in_job=False),
    Step("planted", canaries.plant, settings=("canaries",), after=("corpus",), in_job=False, command="canaries"),
    Step(f"exposure/{BACKBONE}", canaries.expose, settings=_ASKED, after=("corpus", "pretrain"), in_job=False),
    Step("exposure/train/{arm}", canaries.expose, settings=_ASKED, after=("train/{arm}",), in_job=False),
    Step("exposure/finetune/{student}", canaries.expose, settings=_ASKED, after=("finetune/{student}",), in_job=False),
)  # fmt: skip
ORDER = {step.name: place for place, step in enumerate(STEPS)}
DEEPEST = 1 + max(name.count("/") for name in ORDER)  # folders in the name of a step


@dataclass(frozen=True)
class Named:
    """One step of a run by its folder's name: the entry of the table, and whose it is."""

    kind: Step
    student: str  # empty for a step of the run; the scorer is no arm's

    @property
    def arm(self) -> str:
        """The arm whose student it is."""
        return self.student.partition("@")[0]

    def filled(self, names: Sequence[str]) -> list[str]:
        """Names of other steps for the same arm and student."""
        return [name.format(arm=self.arm, student=self.student) for name in names]


def named(name: str) -> Named:
    """The step called `name`. Raises KeyError if the table has no such step."""
    if name in ORDER:
        return Named(STEPS[ORDER[name]], "")
    folder, _, student = name.rpartition("/")
    for placeholder in ("{student}", "{arm}"):
        if (kind := f"{folder}/{placeholder}") in ORDER:
            return Named(STEPS[ORDER[kind]], student)
    raise KeyError(name)


def is_step(name: str) -> bool:
    """Has the table a step that can be called so?"""
    try:
        return bool(named(name))
    except KeyError:
        return False
