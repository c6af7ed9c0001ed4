"""The driver: makes steps of the table (steps.py), and whatever they need first.

    pretrain -> finetune (the scorer) -> attribute and mask, in one stream -> train -> finetune -> evaluate -> report

An arm is one line of the final table: how its student learns from unlabelled notes before it sees the labels. All arms
share the backbone, the labels, the fine-tuning settings and the scorer's relevance. Every call resumes: what is
finished is not made again.
"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.guard import stalls
from raypipe.runs import integrity, lock, model_card, outcomes
from raypipe.runs.dev_score import DevScore
from raypipe.runs.failures import Failures
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.run import Run
from raypipe.runs.steps import STEPS, Step, named
from raypipe.settings.config import Arm
from raypipe.stream.inline import Inline
from raypipe.training import trackers, trainer
from raypipe.training.loop import Outcome
from raypipe.training.trainer import TrainingSpec

# Steps that a command also makes although another command has their name: masks may need relevance to be stored first.
ALSO_MAKES = {"mask": {"attribute"}}
# Commands that, where no arm is named, make the steps of all arms that have any. The others make those of the run.
FOR_ALL_ARMS = {"train", "evaluate"}


@dataclass(frozen=True)
class Todo:
    """A step that is to be made."""

    run: Run
    name: str
    kind: Step
    inputs: frozenset[Path]  # folders of the steps, not finished either, that must be made before it

    @property
    def path(self) -> Path:
        """The step's folder."""
        return self.run.folder / self.name

    @property
    def reads(self) -> list[Path]:
        """Folders of the finished steps that it is made from."""
        step, config = named(self.name), self.run.settings
        arm = config.arms.get(step.arm, Arm())
        names = step.filled([*self.kind.inputs(config, arm), *self.kind.made_from(config, arm)])
        return [folder.path for name in names if (folder := self.run.step(name)).done]

    @property
    def student(self) -> str:
        """Whose step it is; empty for a step of the run."""
        return named(self.name).student


def missing(run: Run, names: Iterable[str]) -> list[Todo]:
    """The steps `names` and all that they need, as far as they are not finished, each after its inputs. Looks only."""
    todo: dict[Path, Todo] = {}
    for name in names:
        _visit(run, name, todo)
    return list(todo.values())


def _visit(run: Run, name: str, todo: dict[Path, Todo]) -> Path | None:
    """Enter a step and its inputs into `todo`; returns its folder if it is still to be made."""
    step = named(name)
    run = run.of(step.arm)
    arm = run.settings.arms.get(step.arm, Arm())
    path = run.folder / name
    if path not in todo:
        if not step.kind.is_used(run.settings, arm) or run.is_done(name):
            return None
        inputs = [_visit(run, other, todo) for other in step.filled(step.kind.inputs(run.settings, arm))]
        todo[path] = Todo(run, name, step.kind, frozenset(path for path in inputs if path is not None))
    return path


def make(run: Run, names: Sequence[str], command: str | None = None, at_once: int = 1) -> None:
    """Make the steps `names` and what they need, as far as they are not finished.

    `command`: refuse to make a step that belongs to another command; None: make everything. `at_once`: how many such
    calls share the cluster. Training steps that are ready together run on one set of workers.
    """
    todo = missing(run, names)
    integrity.demand_whole(path for t in todo for path in t.reads)
    refuse_other_settings(todo, names)
    if command is not None:
        _refuse_others(todo, {command, *ALSO_MAKES.get(command, ())})
    renewed = [t for t in todo if t.kind.before_renewal and t.run.step(t.name).state is State.OUTGROWN]
    for t in renewed:
        t.kind.before_renewal(t.run, t.run.step(t.name))  # type: ignore[misc]
    if renewed:
        todo = missing(run, names)  # less is missing now
    made: set[Path] = set()
    while todo:
        ready = next(([t] for t in todo if t.kind.make and t.inputs <= made), None)
        if ready:
            _make(ready[0])
        else:
            ready = _trained_together(todo, made)
            _train(ready, at_once)
        _return_memory()
        made |= {t.path for t in ready}
        todo = [t for t in todo if t.path not in made]


def _return_memory() -> None:
    """Hand freed memory back to the system, so that what runs beside this process can have it.

    glibc keeps what lies below the last block in use: after two steps of training 270 M parameters, 1.6 GB.
    """
    with suppress(OSError, AttributeError):  # another C library, which has no such call
        ctypes.CDLL(None).malloc_trim(0)


def refuse_other_settings(todo: Sequence[Todo], names: Sequence[str]) -> None:
    """Raise `InputError` if a step exists with other settings; those of `names` are named first."""
    other = [t for t in todo if t.run.step(t.name).state is State.OTHER]
    if other:
        raise InputError([t.run.step(t.name).problem() for t in [t for t in other if t.name in names] or other])


def _refuse_others(todo: Sequence[Todo], commands: set[str]) -> None:
    problems = [
        t.run.step(t.name).problem(t.kind.command)
        for t in todo
        if t.kind.command is not None and t.kind.command not in commands
    ]
    if problems:
        raise InputError(problems)


def _opened(t: Todo) -> StepFolder:
    """The folder to write in.

    What was made before arms were added is made again. The rows of the other arms come out as they were, so what was
    learned from them need not be learned again.
    """
    folder = t.run.step(t.name)
    if folder.state is State.OUTGROWN:
        folder.clear()
    return folder.open()


def _make(t: Todo) -> None:
    assert t.kind.make is not None  # noqa: S101 (the caller chose such a step)
    folder = _opened(t)
    with integrity.blamed(t.reads), _followed(t, folder), _limited(t.run, t.name, [folder]):
        facts = t.kind.make(t.run, folder, t.student)
    folder.finish(**facts)
    t.run.say(outcomes.line(t.run, t.name))


def _limited(run: Run, names: str, folders: Sequence[StepFolder]) -> AbstractContextManager[None]:
    limit = run.settings.resources.no_progress_timeout_s
    return stalls.ended_after(limit, names, [folder.path for folder in folders], _notes(run))


def _notes(run: Run) -> Path:
    """Where workers leave word of what they did not end."""
    return lock.root_of(run.folder) / stalls.NOTES


def _followed(t: Todo, folder: StepFolder) -> AbstractContextManager[None]:
    """Show how many rows the step has written, if it says how many it will write, and how fast."""
    if t.kind.rows is None:
        return nullcontext()
    workers, total = t.run.cluster, t.kind.rows(t.run)  # asked of this thread: it may start Ray
    speed, data = t.kind.speed(t.run) if t.kind.speed else None, folder.path / "data"
    return t.run.follow(t.name, t.kind.unit, lambda: (workers.rows_written(data), total, speed(data) if speed else ""))


def _trained_together(todo: Sequence[Todo], made: set[Path]) -> list[Todo]:
    """The next training steps of one run, each after those that it starts from."""
    group: list[Todo] = []
    ready = set(made)
    for t in todo:
        if t.kind.train and t.inputs <= ready and (not group or t.run is group[0].run):
            group.append(t)
            ready.add(t.path)
    assert group  # noqa: S101 (every step comes after its inputs)
    return group


def _train(group: Sequence[Todo], at_once: int) -> None:
    """Run training steps one after the other on one set of workers."""
    folders = [_opened(t) for t in group]
    with integrity.blamed(path for t in group for path in t.reads):
        specs = [t.kind.train(t.run, folder, t.student) for t, folder in zip(group, folders, strict=True)]  # type: ignore[misc]
        with _limited(group[0].run, ", ".join(t.name for t in group), folders):
            trained = _fitted(group[0].run, specs, at_once)
    for t, folder, spec, outcome in zip(group, folders, specs, trained, strict=True):
        model_card.write(t.run, t.name, spec, outcome)
        folder.finish(**vars(outcome))
        t.run.say(outcomes.line(t.run, t.name))


def _fitted(run: Run, specs: Sequence[TrainingSpec], at_once: int) -> list[Outcome]:
    """What the trainings reported."""
    names, tracking = ", ".join(spec.name for spec in specs), run.settings.tracking
    watch = run.watch or (DevScore(run.inline()) if tracking.dev_scores else None)
    folders = [Path(spec.folder) for spec in specs]
    with trackers.copied(folders, lock.root_of(run.folder), tracking, run.say):
        if isinstance(run.cluster, Inline):
            run.say(f"{names}: training in this process")
            return trainer.fit_here(specs, run.cluster.threads, run.cluster.has_gpu, watch, run.follow)
        resources = run.settings.resources
        each = run.cluster.worker(at_once, resources.cpus_per_worker, resources.training_workers)
        run.say(f"{names}: training on {resources.training_workers} x {each}")
        return trainer.fit(specs, resources, each, watch, run.follow, _notes(run))


def _names(run: Run, kind: Step, arms: Sequence[str]) -> Iterator[str]:
    """Names of the steps of a kind, for these arms; of a step per run, its own name."""
    if kind.per == "run":
        yield kind.name
        return
    for arm in arms:
        if kind.is_used(run.settings, run.settings.arms[arm]):
            students = [arm] if kind.per == "arm" else run.students(arm)
            yield from (kind.name.format(arm=arm, student=student) for student in students)


def shared_steps(run: Run) -> list[str]:
    """The steps of the whole job that all arms share."""
    return [step.name for step in STEPS if step.per == "run" and step.is_in_job(run.settings)]


def steps_of(run: Run, arm: str) -> list[str]:
    """The steps of the whole job that belong to an arm, in the order of the table."""
    kinds = [step for step in STEPS if step.per != "run" and step.is_in_job(run.settings)]
    return [name for kind in kinds for name in _names(run, kind, [arm])]


def all_steps(run: Run) -> list[str]:
    """The steps of the whole job, those of all arms included; a step that several of them share may stand twice."""
    return [*shared_steps(run), *(name for arm in run.settings.arms for name in steps_of(run, arm))]


def steps_by_run(run: Run) -> list[tuple[Run, list[str]]]:
    """The steps of the whole job beside the run that makes them: this one, or the variant of an arm."""
    shared = [(each, shared_steps(each)) for each in (run, *run.all_variants())]
    return [*shared, *((run.of(arm), steps_of(run.of(arm), arm)) for arm in run.settings.arms)]


def missing_in_job(run: Run) -> list[Todo]:
    """The steps of the whole job that are not finished, those of variants included, each after its inputs.

    A step that comes out alike for a variant and for the run is the run's.
    """
    todo = {t.path: t for each, steps in steps_by_run(run) for t in missing(each, steps)}
    own = {t.name: t.run.step(t.name).settings for t in todo.values() if t.run is run}
    return [t for t in todo.values() if t.run is run or t.run.step(t.name).settings != own.get(t.name)]


def prepare(run: Run) -> None:
    """All that the arms share: backbone, scorer, masks and pseudo-labels, as training rows."""
    for each in (run, *run.all_variants()):
        make(each, shared_steps(each))


def _prepare_arms(run: Run, failed: Failures) -> None:
    """As `prepare`, but an arm with an attribution of its own may fail alone."""
    make(run, shared_steps(run))
    for variant in run.all_variants():
        with failed.noted(variant.settings.name, run.say):
            make(variant, shared_steps(variant))


def _say_what_is_done(run: Run, names: Iterable[str]) -> None:
    """A line for each step that a command would make, but that is there: made before, or by `open` a moment ago."""
    for name in dict.fromkeys(names):
        of_step = run.of(named(name).arm)
        if of_step.is_done(name):
            with integrity.blamed([of_step.step(name).path]):
                run.say(f"{outcomes.line(of_step, name)}{'' if name in of_step.made else ' (was done before)'}")


def is_prepared(run: Run) -> bool:
    """Is everything there that the arms share? Looks only."""
    return not any(missing(each, shared_steps(each)) for each in (run, *run.all_variants()))


def learn(run: Run, arm: str, at_once: int = 1) -> None:
    """Reconstruction and fine-tunings of an arm, on the same workers."""
    own = run.of(arm)
    make(own, [name for name in steps_of(own, arm) if named(name).kind.train], at_once=at_once)


def evaluate(run: Run, arm: str) -> None:
    """Everything of an arm that is not there yet: its students' predictions, above all."""
    own = run.of(arm)
    make(own, steps_of(own, arm))


def renew_students(run: Run, arm: str) -> None:
    """Delete what was made from a student whose model is gone, if something new is to be read from that model.

    All that is said of a student comes from one model, and a repeated training may round otherwise on another machine.
    Raises `InputError` before anything is deleted if a step has other settings.
    """
    for student in run.students(arm):
        fitted = run.step(f"finetune/{student}")
        todo = missing(run, [name for name in steps_of(run, arm) if name.endswith(f"/{student}")])
        if not todo or not fitted.done or (fitted.path / "model").exists():
            continue
        refuse_other_settings(todo, ())
        own = {run.folder / kind.name.format(student=student, arm=arm) for kind in STEPS if kind.per == "student"}
        if fitted.path.is_relative_to(run.folder):  # or else a base's, which keeps its models
            own.add(fitted.path)  # dev labels chose it
        for folder in own:
            if folder.exists():
                shutil.rmtree(folder)


def is_measured(run: Run, arm: str) -> bool:
    """Are all steps of an arm finished? Looks only."""
    own = run.of(arm)
    return not missing(own, steps_of(own, arm))


@contextmanager
def _left_if_interrupted(run: Run) -> Iterator[None]:
    """After ctrl-C in a notebook, no worker goes on writing where another command may be by then."""
    try:
        yield
    except BaseException as end:
        if not isinstance(end, Exception) and "cluster" in vars(run):  # no failure, and it was joined
            run.cluster.leave()
        raise


def run_all(run: Run) -> None:
    """The whole job but the report (findings/). The same call again goes on where the last one stopped.

    An arm that fails does not stop the others: in the end, `InputError` has what failed.
    """
    failed, settings = Failures(), run.settings
    with _left_if_interrupted(run):
        _say_what_is_done(run, all_steps(run))
        todo = missing_in_job(run)
        integrity.demand_whole(path for t in todo for path in t.reads)
        refuse_other_settings(todo, shared_steps(run))
        _prepare_arms(run, failed)
        if not all(is_measured(run, arm) for arm in settings.arms):
            run.cluster  # noqa: B018 (Ray's processes end with the thread that starts them: it must be this one)
        _learn_all(run, failed)
        for name in settings.arms:  # one after the other: each takes all devices
            if name not in failed.errors:
                with failed.noted(name, run.say):
                    evaluate(run, name)
    n_failed, n = len(failed.errors), len(settings.arms)
    others = f", and `raypipe report --config {run.folder}` shows the others" if n_failed < n else ""
    failed.tell(f"{n_failed} of {n} arms failed; the same command tries them again{others}")


def _learn_all(run: Run, failed: Failures) -> None:
    resources, names = run.settings.resources, [name for name in run.settings.arms if name not in failed.errors]
    at_once = min(resources.concurrent_arms, len(names)) if resources.ray else 1
    if at_once <= 1:  # in this thread, because ctrl-C reaches no other
        for name in names:
            with failed.noted(name, run.say):
                learn(run, name)
        return
    with ThreadPoolExecutor(at_once) as pool, _left_if_interrupted(run):
        arms = {name: pool.submit(learn, run, name, at_once) for name in names}
        try:
            for name, arm in arms.items():
                with failed.noted(name, run.say):
                    arm.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_command(run: Run, command: str, arms: Sequence[str] = ()) -> list[tuple[Run, str]]:
    """What one command makes: its steps of the run, or with `arms` those arms' steps; their inputs must be finished.

    Returns those steps, also where they were made before: the run (an arm may be a variant's) and the name of each.
    Raises `InputError` if an input is not finished, if there is no such arm, or if an arm has no such step.
    """
    if unknown := sorted(set(arms) - set(run.settings.arms)):
        raise InputError(f"no such arm: {', '.join(unknown)}; the config has {', '.join(run.settings.arms)}")
    kinds, is_for_all = [step for step in STEPS if step.command == command], not arms
    if is_for_all and command in FOR_ALL_ARMS:
        of_arms = [kind for kind in kinds if kind.per != "run"]
        arms = [name for name, arm in run.settings.arms.items() if any(k.is_used(run.settings, arm) for k in of_arms)]
    made: list[tuple[Run, str]] = []
    with _left_if_interrupted(run):
        if is_for_all:
            of_run = [kind for kind in kinds if kind.per == "run"]
            if command in FOR_ALL_ARMS:  # beside those of the arms, what the job makes: answers of a scorer of its own
                of_run = [kind for kind in of_run if kind.is_in_job(run.settings)]
            for each in (run, *run.all_variants()):
                names = [kind.name for kind in of_run if each is run or kind.of_variants]
                _say_what_is_done(each, names)
                make(each, names, command)
                made += [(each, name) for name in names if each.is_done(name)]
        for arm in arms:
            own = run.of(arm)
            names = [name for kind in kinds if kind.per != "run" for name in _names(own, kind, [arm])]
            if not names:
                raise InputError([Problem(f"arms.{arm}", f"there is nothing to {command} for this arm")])
            _say_what_is_done(own, names)
            make(own, names, command)
            made += [(own, name) for name in names]
    return made
