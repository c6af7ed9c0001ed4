"""One run: its configuration, its corpus, where its steps and models lie. Making a `Run` writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.errors import InputError
from raypipe.guard.folders import ANYONE, open_to_others
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.models.prompts import MASK, PromptEncoder, with_mark
from raypipe.notes.corpus import Corpus
from raypipe.runs import collect, inputs, lock
from raypipe.runs.checking.check import check
from raypipe.runs.determinants import settings_of
from raypipe.runs.folder import StepFolder, refuse_links
from raypipe.runs.inputs import File
from raypipe.runs.integrity import Entry
from raypipe.runs.names import SCORER
from raypipe.runs.progress import Printer, Read
from raypipe.runs.steps import named
from raypipe.settings import config, configfile
from raypipe.stream.cluster import join
from raypipe.stream.pipeline import Job

if TYPE_CHECKING:
    from raypipe.stream.pipeline import Workers
    from raypipe.training.trainer import Watch


@dataclass
class Run:
    """One run directory and its configuration. Reading it changes nothing on disk; `open` prepares it for making steps.

    `base`: a run that this one repeats with a few other settings. A step that is finished there, and that the other
    settings do not touch, is read from there: a search or a comparison pays once for what its runs share.
    `elder`, of a variant: the variant of the same arm in the nearest base that has this arm. It is read likewise.
    """

    settings: config.Config
    base: Run | None = None
    say: Callable[[str], None] = field(default_factory=Printer)
    watch: Watch | None = None  # is called after every optimiser step of its trainings
    variants: dict[str, Run] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)  # steps that `open` made
    elder: Run | None = None

    def __post_init__(self) -> None:
        if self.settings.resources.use_gpu is False:  # Ray does not hide GPUs from workers that ask for none
            model = self.settings.model.model_copy(update={"device": "cpu"})
            self.settings = self.settings.model_copy(update={"model": model})

    def open(self) -> Run:
        """Check all input, make the corpus if it is not there, and write config.yaml. Ray starts when a step needs it.

        Raises `InputError` with every problem of config, tasks, labels, notes and model, or links in the folder.
        """
        refuse_links(self.folder)
        corpus = self.step("corpus")
        if corpus.done:
            check(self.settings, self.corpus)
        else:
            corpus.finish(**collect.make_corpus(self, corpus))
            self.made.add("corpus")
        self.folder.mkdir(parents=True, exist_ok=True)
        for place, why in open_to_others(self.folder):
            if why == ANYONE:
                self.say(f"warning: {place}: {why}, and so may replace this run; take the right away (chmod o-w)")
        (self.folder / configfile.RESOLVED).write_text(configfile.dump(self.settings))
        return self

    @contextmanager
    def held(self, path: Path | str, overrides: configfile.Overrides | None) -> Iterator[Run]:
        """Open it, to be written in by this process alone. Problems stand at their lines in the config at `path`."""
        with lock.held(lock.root_of(self.folder)):
            try:
                self.open()
            except InputError as error:
                raise configfile.located(error, path, overrides or ()) from None
            yield self

    def follow(self, name: str, unit: str, read: Read) -> AbstractContextManager[None]:
        """Show how far a step has come while the block runs; whoever listens to lines alone is spared."""
        return self.say.follow(name, unit, read) if isinstance(self.say, Printer) else nullcontext()

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.settings.runs).resolve() / self.settings.name

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Name, size and time of every input file: what is recorded of the input with each step."""
        if self.base is not None and inputs.reads_the_same(self.base.settings, self.settings):
            return self.base.inputs
        return inputs.listing(self.settings)

    @cached_property
    def recorded(self) -> dict[str, Entry]:
        """What the corpora of this run and of its bases keep of the input files, by path."""
        return {**(self.base.recorded if self.base is not None else {}), **inputs.recorded(self.folder / "corpus")}

    @cached_property
    def copied(self) -> dict[File, File]:
        """Input files whose time alone has changed since the corpus was made."""
        base = self.base
        if base is None:
            return inputs.copies(self.recorded)
        own = {path: entry for path, entry in self.recorded.items() if base.recorded.get(path) != entry}
        return base.copied | inputs.copies(own)

    @cached_property
    def corpus(self) -> Corpus:
        """Tasks, labels and notes in use. Raises `InputError` if the corpus was not made yet (`open`)."""
        if self.base is not None and self.base.settings.data == self.settings.data:
            return self.base.corpus
        return collect.read_corpus(self)

    @cached_property
    def cluster(self) -> Workers:
        """Ray, joined or started; or this process, if `resources.ray` is false."""
        if self.base is not None and self.base.settings.resources == self.settings.resources:
            return self.base.cluster
        if self.settings.resources.ray:
            self.say("starting Ray")
        return join(self.settings.resources)

    @property
    def job(self) -> Job:
        """What the stream of a step works on, and with."""
        settings = self.settings.model_copy(update={"prompt": self.prompt})
        return Job(settings, self.corpus, self.cluster)

    def inline(self) -> Run:
        """This run for a worker: the same folders, every step in the worker's process."""
        resources = self.settings.resources.model_copy(update={"ray": False})
        settings = self.settings.model_copy(update={"resources": resources})
        base, elder = self.base and self.base.inline(), self.elder and self.elder.inline()
        twin = replace(self, settings=settings, base=base, elder=elder, variants={})
        # read once, not by every worker
        twin.__dict__ |= {"corpus": self.corpus, "inputs": self.inputs, "copied": self.copied}
        return twin

    def of(self, arm: str) -> Run:
        """The run that an arm is learned in: this one, or a variant for an arm with an attribution of its own."""
        settings = self.settings.arms.get(arm)
        if settings is None or settings.attribution is None:
            return self
        if arm not in self.variants:
            own = {"name": arm, "runs": str(self.folder / "variants"), "attribution": settings.attribution}
            own["arms"] = {arm: settings.model_copy(update={"attribution": None})}
            above = self.base
            while above is not None and arm not in above.settings.arms:  # a candidate has the arm of labels alone
                above = above.base
            elder = above.of(arm) if above is not None else None
            self.variants[arm] = Run(self.settings.model_copy(update=own), self, self.say, elder=elder)
        return self.variants[arm]

    def all_variants(self) -> list[Run]:
        """The runs of the arms that have an attribution of their own."""
        return [variant for arm in self.settings.arms if (variant := self.of(arm)) is not self]

    def step(self, name: str) -> StepFolder:
        """A step's folder: of a run that this one builds on, if it has finished this very step. Looks only."""
        settings = settings_of(name, self.settings, self.inputs, self.copied)
        return self._before(name, settings) or StepFolder(self.folder / name, settings)

    def finished(self, name: str, settings: dict[str, Any]) -> StepFolder | None:
        """The step of this run or of one it builds on, if it is complete and was made with exactly these settings."""
        own = StepFolder(self.folder / name, settings)
        return own if own.done else self._before(name, settings)

    def _before(self, name: str, settings: dict[str, Any]) -> StepFolder | None:
        steps = (run.finished(name, settings) for run in (self.elder, self.base) if run is not None)
        return next((step for step in steps if step is not None), None)

    def is_done(self, name: str) -> bool:
        """Is a step's output complete, and made with these settings?"""
        return self.step(name).done

    def needed(self, name: str) -> StepFolder:
        """A finished step. Raises `InputError` if it is not finished, or was made with other settings."""
        step = self.step(name)
        if not step.done:
            raise InputError([step.problem(named(name).kind.command)])
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
        return self._own("pretrain/rows", "../tokenizer") if self.pretrains else self.settings.model

    @property
    def sentinels(self) -> tuple[str, ...]:
        """Reserved tokens of the backbone's family."""
        own = self.settings.pretrain if self.pretrains else None
        family = own.family if own is not None else loading.check(self.settings.model).model_type
        return FAMILIES[family].sentinels

    def reconstructs(self, arm: str) -> bool:
        """Does the arm's student learn from unlabelled notes before it sees the labels?"""
        return self.settings.arms.get(arm, config.Arm()).reconstructs

    def is_labels_only(self, arm: str) -> bool:
        """Is the arm fine-tuning of the backbone and nothing else?"""
        settings = self.settings.arms[arm]
        return settings.finetune and settings.start == "backbone" and not self.reconstructs(arm)

    def students(self, arm: str) -> list[str]:
        """Names of the students that an arm is measured by: one per repeat."""
        n = self.settings.repeats if self.settings.arms[arm].finetune else 1
        return [self.student_of(arm, repeat) for repeat in range(n)]

    def student_of(self, arm: str, repeat: int = 0) -> str:
        """Whose model a repeat of an arm evaluates; the first of labels only is the scorer, unless that is another."""
        if repeat == 0 and self.is_labels_only(arm) and self.settings.scorer_is_a_student:
            return SCORER
        return f"{arm}@{repeat}" if repeat else arm

    def model(self, student: str, step: str = "finetune") -> config.Model:
        """The model that a step leaves for a student (or for the scorer)."""
        arm = self.settings.arms.get(student)
        is_untuned = self.settings.scorer.untuned if student == SCORER else arm is not None and not arm.finetune
        if step == "finetune" and is_untuned:
            return self.backbone
        return self._own(f"{step}/{student}", "model")

    def _own(self, step: str, folder: str) -> config.Model:
        path = (self.step(step).output / folder).resolve()
        return self.settings.model.model_copy(update={"path": str(path), "adapter": None, "revision": None})

    @property
    def prompt(self) -> config.Prompt:
        """The section `prompt`, with this backbone's mark for `{mask}`. The tokenizer must be there."""
        prompt = self.settings.prompt
        if MASK not in prompt.question:
            return prompt
        rows_train = self.settings.train.lora is None  # as for masked notes
        return with_mark(prompt, loading.load_tokenizer(self.tokenizer), self.sentinels, rows_train)

    def encoder(self) -> PromptEncoder:
        """Prompts of this run."""
        tokenizer = loading.load_tokenizer(self.tokenizer)
        return PromptEncoder(tokenizer, self.prompt, self.corpus.tasks, self.settings.model.chat)
