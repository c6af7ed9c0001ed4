"""One run: its configuration, its corpus, and where each of its models lies."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from raypipe.settings import config, configfile
from raypipe.stream.cluster import join
from raypipe.notes.corpus import Corpus, collect
from raypipe.errors import InputError, Problem
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.models.prompts import PromptEncoder
from raypipe.runs.folder import Step, settings_of

if TYPE_CHECKING:
    from raypipe.stream.pipeline import Workers
    from raypipe.training.trainer import Watch

SCORER = "scorer"


@dataclass
class Run:
    """One run directory and its configuration. Opening it checks all input; Ray starts when a step first needs it.

    `base`: a run that this one repeats with a few other settings. A step that is finished there, and that the other
    settings do not touch, is read from there: a search or a comparison pays once for what its runs share.
    """

    settings: config.Config
    base: Run | None = None
    watch: Watch | None = None  # hears of every step of training that happens in this process
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.variants: dict[str, Run] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.corpus: Corpus = collect(self.settings, self.folder / "corpus", self.base.corpus if self.base else None)
        if self.settings.resources.use_gpu is False:  # Ray does not hide GPUs from workers that ask for none
            model = self.settings.model.model_copy(update={"device": "cpu"})
            self.settings = self.settings.model_copy(update={"model": model})
        (self.folder / "config.yaml").write_text(configfile.dump(self.settings))

    @property
    def folder(self) -> Path:
        """The run directory."""
        return (Path(self.settings.runs) / self.settings.name).resolve()

    @cached_property
    def cluster(self) -> Workers:
        """Ray, joined or started; or this process, if `resources.ray` is false."""
        if self.base is not None and self.base.settings.resources == self.settings.resources:
            return self.base.cluster
        if self.settings.resources.ray:
            self.say("starting Ray")
        return join(self.settings.resources)

    def inline(self) -> Run:
        """This run for a worker: the same folders, every step in the worker's process."""
        resources = self.settings.resources.model_copy(update={"ray": False})
        twin = object.__new__(Run)
        twin.__dict__ |= {key: value for key, value in vars(self).items() if key != "cluster"}
        twin.settings = self.settings.model_copy(update={"resources": resources})
        twin.base = self.base and self.base.inline()
        twin.variants = {}
        return twin

    def of(self, arm: str) -> Run:
        """The run that an arm is learned in: this one, or one beside it for an arm with an attribution of its own."""
        settings = self.settings.arms.get(arm)
        if settings is None or settings.attribution is None:
            return self
        if arm not in self.variants:
            own = {"name": arm, "runs": str(self.folder / "variants"), "attribution": settings.attribution}
            own["arms"] = {arm: settings.model_copy(update={"attribution": None})}
            self.variants[arm] = Run(self.settings.model_copy(update=own), base=self, began=self.began)
        return self.variants[arm]

    def all_variants(self) -> list[Run]:
        """The runs of the arms that have an attribution of their own."""
        return [own for arm in self.settings.arms if (own := self.of(arm)) is not self]

    def step(self, name: str) -> Step:
        """The folder of a step, or the base's if it has this very step; refused if it was made with other settings."""
        settings = settings_of(name, self.settings, self.corpus.listing)
        shared = self.base and self.base.finished(name, settings)
        return shared or Step(self.folder / name, settings)

    def finished(self, name: str, settings: dict[str, object]) -> Step | None:
        """The step of this run or of its base, if it is complete and was made with exactly these settings."""
        if (step := Step.finished(self.folder / name, settings)) is not None:
            return step
        return self.base.finished(name, settings) if self.base is not None else None

    def is_done(self, name: str) -> bool:
        """Is a step's output complete (and made with these settings)?"""
        return not self.lacks_arms(name) and self.step(name).done

    def lacks_arms(self, name: str) -> bool:
        """Was a step's output made before an arm was added, and is it otherwise what these settings ask for?"""
        settings = settings_of(name, self.settings, self.corpus.listing)
        in_base = self.base is not None and self.base.finished(name, settings) is not None
        return not in_base and bool(Step.lacks(self.folder / name, settings))

    def needed(self, name: str) -> Step:
        """A step that another one starts from; refused if it is not finished."""
        step = self.step(name)
        if not step.done:
            raise InputError(
                [Problem(str(step.folder), "is not finished; run that step first, or `raypipe run` for all")]
            )
        return step

    @property
    def pretrains(self) -> bool:
        """Does this run make its own backbone?"""
        return self.settings.model.path == "pretrain"

    @property
    def backbone(self) -> config.Model:
        """Where every student starts."""
        return self._own("pretrain", "model") if self.pretrains else self.settings.model

    @property
    def tokenizer(self) -> config.Model:
        """Where the tokenizer is; it exists before the backbone does."""
        return self._own("pretrain", "tokenizer") if self.pretrains else self.settings.model

    @property
    def sentinels(self) -> tuple[str, ...]:
        """Reserved tokens of the backbone's family."""
        made = self.settings.pretrain if self.pretrains else None
        family = made.family if made is not None else loading.check(self.settings.model).model_type
        return FAMILIES[family].sentinels

    def reconstructs(self, arm: str) -> bool:
        """Does the arm's student learn from unlabelled notes before it sees the labels?"""
        return self.settings.arms.get(arm, config.Arm()).reconstructs

    def is_labels_only(self, arm: str) -> bool:
        """Is the arm fine-tuning of the backbone and nothing else, as the scorer is?"""
        settings = self.settings.arms[arm]
        return settings.finetune and settings.start == "backbone" and not self.reconstructs(arm)

    def students(self, arm: str) -> list[str]:
        """Names of the students that an arm is measured by: one per repeat."""
        n = self.settings.repeats if self.settings.arms[arm].finetune else 1
        return [self.student_of(arm, repeat) for repeat in range(n)]

    def student_of(self, arm: str, repeat: int = 0) -> str:
        """Whose model a repeat of an arm evaluates; the first of labels only, from the backbone, is the scorer."""
        if repeat == 0 and self.is_labels_only(arm):
            return SCORER
        return f"{arm}@{repeat}" if repeat else arm

    def model(self, student: str, step: str = "finetune") -> config.Model:
        """The model that a step leaves for a student (or for the scorer)."""
        arm = self.settings.arms.get(student)
        if step == "finetune" and arm is not None and not arm.finetune:
            return self.backbone
        return self._own(f"{step}/{student}", "model")

    def _own(self, step: str, folder: str) -> config.Model:
        inside = {"path": str(self.step(step).folder / folder), "adapter": None, "revision": None}
        return self.settings.model.model_copy(update=inside)

    def encoder(self) -> PromptEncoder:
        """Prompts of this run."""
        tokenizer = loading.load_tokenizer(self.tokenizer)
        use_chat = self.settings.model.chat == "auto"
        return PromptEncoder(tokenizer, self.settings.prompt, self.corpus.tasks, use_chat)

    def say(self, what: str) -> None:
        """One line of progress. Never holds note text."""
        print(f"[{time.perf_counter() - self.began:6.1f} s] {what}", flush=True)
