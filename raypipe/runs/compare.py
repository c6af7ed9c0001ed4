"""`raypipe compare`: the arms of a config over seeds, budgets and fine-tunings, in one table that says what it can.

A cell is a run of its own, one for each seed and label budget (`cells/seed0-all`, `cells/seed0-50`, ...): its own
subset of the labels, order, scorer, masks and reconstructions. All cells share the backbone, and each arm of a cell has
`repeats` fine-tunings. One cell per seed has a quarter of the labels and the labels-only arm alone, for the gate that
four times the labels must help. A cell with fewer labels takes as many optimiser steps for fine-tuning as its seed's
cell with all of them, so those come first.

A cell of another fine-tuning (`comparison.finetunings`; `cells/seed0-all-<name>`) fine-tunes the students of its seed
and budget otherwise: scorer, masks and reconstructions are shared, so these cells come last. Their models are not kept.

Arms are learned and evaluated side by side as Ray tasks, `resources.concurrent_arms` at once, each in one process;
with more than one training worker by Ray Train, one after the other. The same command again does what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raypipe.errors import InputError, Problem
from raypipe.evaluation.uncertainty import MIN_RUNS
from raypipe.guard.quiet import quiet
from raypipe.runs import driver, finetunings, integrity
from raypipe.runs.failures import Failures
from raypipe.runs.names import EMBEDDINGS, LABELS, TFIDF
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.stream.inline import Inline
from raypipe.training import examples, schedule

DEFAULT = "finetune"  # what the table calls the fine-tuning of that section
QUARTER = 4  # of the labels: four times as many must help
SEED_STRIDE = 1000  # repeats count up from a seed; seeds must not meet


@dataclass(frozen=True)
class Cell:
    """One run of a comparison."""

    seed: int
    budget: int | None  # training labels per task; None: all
    labels_only: bool = False
    finetuning: str | None = None  # one of comparison.finetunings; None: the section `finetune`

    @property
    def name(self) -> str:
        """Its folder."""
        other = f"-{self.finetuning}" if self.finetuning else ""
        return f"seed{self.seed}-{self.budget or 'all'}{other}"

    @property
    def reconstructed(self) -> Cell:
        """The cell whose students this one starts from."""
        return replace(self, finetuning=None)


def compare(run: Run) -> dict[Cell, Run]:
    """Make what is not there yet; returns the runs of all cells, for the report (findings/).

    Raises `InputError` if a label budget is not below the labels there are, or if an arm or dev labels are missing.
    """
    if problems := list(_problems(run)):
        raise InputError(problems)
    every = cells(run)
    for what in _advice(run):
        run.say(what)
    if run.pretrains:
        driver.make(run, ["pretrain"])
    runs: dict[Cell, Run] = {}
    failed = Failures()
    own = [cell for cell in every if not cell.finetuning]
    for some in ([cell for cell in own if cell.budget is None], [cell for cell in own if cell.budget is not None]):
        may_begin = [cell for cell in some if cell.budget is None or Cell(cell.seed, None) in runs]
        of_cell = {cell: Run(cell_settings(cell, run, runs), run, run.say).open() for cell in may_begin}
        unprepared = [(cell_run,) for cell_run in of_cell.values() if not driver.is_prepared(cell_run)]
        _each(run, driver.prepare, unprepared, run.settings.comparison.seeds_in_tasks, failed)
        runs |= {cell: cell_run for cell, cell_run in of_cell.items() if driver.is_prepared(cell_run)}
    _measure(run, _units(runs.values()), _learn, failed)
    others = [cell for cell in every if cell.finetuning and cell.reconstructed in runs]
    tried = {cell: _candidates(cell, run, runs) for cell in others}
    undecided = [of_cell for of_cell in tried.values() if finetunings.chosen(of_cell) is None]
    untried = [candidate for of_cell in undecided for candidate in of_cell if not finetunings.has_diverged(candidate)]
    _measure(run, _units(candidate.open() for candidate in untried), _try, failed)
    units: list[tuple[Run, str]] = []
    for cell in others:
        finetuned = _finetuned(cell, run, runs)
        if finetuned is None:  # a candidate has failed, or all have diverged
            if all(finetunings.has_diverged(candidate) for candidate in tried[cell]):
                where = f"comparison.finetunings.{cell.finetuning}.choose"
                failed.note(
                    cell.name, InputError([Problem(where, "every candidate diverged: try lower learning rates")])
                )
            continue
        runs[cell] = finetuned.open()
        if tried[cell] and finetuned.base is not None:
            finetunings.drop_models(tried[cell], finetuned.base)
        reconstructed = runs[cell.reconstructed]
        units += [(runs[cell], arm) for arm in runs[cell].settings.arms if driver.is_measured(reconstructed, arm)]
    _measure(run, units, _predict, failed)
    failed.tell(
        f"{len(failed.errors)} of its parts failed; the same command tries them again, and "
        f"`raypipe report --config {run.folder}` shows the arms that every seed has"
    )
    return {cell: runs[cell] for cell in every}


def _units(cells: Iterable[Run]) -> list[tuple[Run, str]]:
    return [(cell, arm) for cell in cells for arm in cell.settings.arms]


def _measure(run: Run, units: Sequence[tuple[Run, str]], learn: Callable[[Run, str], None], failed: Failures) -> None:
    """Learn and evaluate arms of cells, as far as that is not done."""
    unmeasured = [(cell, arm) for cell, arm in units if not driver.is_measured(cell, arm)]
    _each(run, learn, unmeasured, run.settings.resources.training_workers == 1, failed)


def _advice(run: Run) -> Iterator[str]:
    """What the table will not be able to say."""
    arms = run.settings.arms.values()
    strategies = {arm.masking.strategy for arm in arms if arm.masking is not None}
    if all(arm.start != "random" for arm in arms):
        yield "no arm has `start: random`: whether the backbone has learned anything stays open, so nothing is ranked"
    if run.pretrains and run.corpus.data.pretraining is None and not run.settings.data.pretraining_share:
        yield "the backbone is pre-trained on the notes that the arms learn from: set data.pretraining_share"
    if "relevance" in strategies and "least_relevant" not in strategies:
        yield "no arm has the strategy least_relevant: whether relevance or hiding as such helps stays open"
    if run.settings.repeats < MIN_RUNS:
        yield f"repeats: {run.settings.repeats}: fewer than {MIN_RUNS} fine-tunings say little about their own noise"


def first(run: Run) -> Run:
    """The comparison's run with all labels of its first seed; the run itself if it has no cells."""
    cell = Cell(0, None)
    has_it = (run.folder / "cells" / cell.name).exists()
    return Run(cell_settings(cell, run, {}), run, run.say) if has_it else run


def opened(run: Run) -> dict[Cell, Run]:
    """The runs of a comparison's cells, as far as they were begun; none if the run has no cells. Looks only.

    A cell with fewer labels begins once the rows of all labels of its seed are there, which say how many steps it
    takes; one of another fine-tuning, once dev labels have chosen it where they are to choose.
    """
    runs: dict[Cell, Run] = {}
    if (run.folder / "cells").exists():
        for cell in sorted(cells(run), key=lambda cell: (cell.finetuning is not None, cell.budget is not None)):
            if cell.finetuning is not None:
                of_cell = _finetuned(cell, run, runs) if cell.reconstructed in runs else None
            else:
                whole = runs.get(Cell(cell.seed, None))
                may_begin = cell.budget is None or (whole is not None and whole.is_done("finetune/rows"))
                of_cell = Run(cell_settings(cell, run, runs), run, run.say) if may_begin else None
            if of_cell is not None and of_cell.is_done("corpus"):
                runs[cell] = of_cell
    return runs


def cells(run: Run) -> list[Cell]:
    """All cells, seed by seed."""
    n_labels, comparison = run.corpus.labels_per_task, run.settings.comparison
    every, quarter = [], n_labels // QUARTER
    for seed in range(comparison.seeds):
        own = [Cell(seed, None), *(Cell(seed, budget) for budget in comparison.budgets)]
        every += [*own, *(replace(cell, finetuning=name) for name in comparison.finetunings for cell in own)]
        if quarter and quarter not in comparison.budgets:
            every.append(Cell(seed, quarter, labels_only=True))
    return every


def _problems(run: Run) -> Iterator[Problem]:
    """What the comparison asks of labels and arms that are not there."""
    n_labels, comparison = run.corpus.labels_per_task, run.settings.comparison
    if not any(run.is_labels_only(arm) for arm in run.settings.arms):
        what = "a comparison needs an arm of labels alone (`sft: {}`): gains and gates are measured by it"
        yield Problem("arms", what)
    if too_many := [budget for budget in comparison.budgets if budget >= n_labels]:
        what = f"{too_many} must be less than the {n_labels} training labels per task (median)"
        yield Problem("comparison.budgets", what)
    for pair in comparison.pairs:
        if not set(pair) <= {*run.settings.arms, TFIDF, EMBEDDINGS}:
            yield Problem("comparison.pairs", f"{pair} names an arm that is not there")
        if pair[0] == pair[1]:
            yield Problem("comparison.pairs", f"{pair} names one arm twice")
    if DEFAULT in comparison.finetunings:
        what = "is the name of the run's own fine-tuning; choose another"
        yield Problem(f"comparison.finetunings.{DEFAULT}", what)
    yield from _of_choices(run)


def _of_choices(run: Run) -> Iterator[Problem]:
    """Is there what a choice on dev labels needs?"""
    for name, finetuning in run.settings.comparison.finetunings.items():
        where = f"comparison.finetunings.{name}.choose"
        if finetuning.choose is not None:
            if not run.corpus.has_dev:
                yield Problem(where, "needs labels in the split dev")
            if run.settings.evaluation.split == "dev":
                yield Problem(where, "is made on dev, so evaluation.split must be another split")


def _labels_only(run: Run) -> str:
    """The first arm of labels alone."""
    return next(arm for arm in run.settings.arms if run.is_labels_only(arm))


def _trainings(cell: Cell, run: Run, runs: Mapping[Cell, Run]) -> list[config.Training]:
    """Fine-tunings that a cell chooses from."""
    trainings = run.settings.comparison.finetunings[str(cell.finetuning)].candidates
    if cell.budget is not None:
        trainings = [_as_many_steps(training, runs[Cell(cell.seed, None)]) for training in trainings]
    return [_shifted(training, SEED_STRIDE * cell.seed) for training in trainings]


def _candidates(cell: Cell, run: Run, runs: Mapping[Cell, Run]) -> list[Run]:
    """Runs that tell which fine-tuning a cell gets; none if there is no choice."""
    trainings = _trainings(cell, run, runs)
    if len(trainings) == 1:
        return []
    return finetunings.candidates(runs[cell.reconstructed], trainings, cell.name, _labels_only(run))


def _finetuned(cell: Cell, run: Run, runs: Mapping[Cell, Run]) -> Run | None:
    """The run of a cell with another fine-tuning; None while dev labels have not chosen it."""
    reconstructed, tried = runs[cell.reconstructed], _candidates(cell, run, runs)
    if not tried:
        return finetunings.finetuned(reconstructed, _trainings(cell, run, runs)[0], cell.name)
    best = finetunings.chosen(tried)
    return best and finetunings.finetuned(reconstructed, best.settings.finetune, cell.name, base=best)


def cell_settings(cell: Cell, run: Run, runs: Mapping[Cell, Run]) -> config.Config:
    """The run's settings with the seed, budget and folder of a cell that has no fine-tuning of its own.

    `runs`: at least the seed's cell with all labels.
    """
    settings, shift = run.settings, SEED_STRIDE * cell.seed
    data = settings.data.model_copy(update={"label_seed": cell.seed})
    arms = {name: _arm_shifted(arm, shift) for name, arm in settings.arms.items()}
    finetune, own_scorer = settings.finetune, settings.scorer.training
    if cell.budget is not None:
        data = data.model_copy(update={"max_labelled": cell.budget})
        with_all = runs[Cell(cell.seed, None)]
        finetune = _as_many_steps(finetune, with_all)
        own_scorer = own_scorer and _as_many_steps(own_scorer, with_all)
    if cell.labels_only:
        arms = {name: arm for name, arm in arms.items() if run.is_labels_only(name)}
    return settings.model_copy(
        update={
            "name": cell.name,
            "runs": str(run.folder / "cells"),
            "seed": settings.seed + shift,
            "data": data,
            "finetune": _shifted(finetune, shift),
            "scorer": settings.scorer.model_copy(update={"training": own_scorer and _shifted(own_scorer, shift)}),
            "train": _shifted(settings.train, shift),
            "arms": arms,
        }
    )


def _shifted(training: config.Training, shift: int) -> config.Training:
    return training.model_copy(update={"seed": training.seed + shift})


def _arm_shifted(arm: config.Arm, shift: int) -> config.Arm:
    return arm if arm.train is None else arm.model_copy(update={"train": _shifted(arm.train, shift)})


def _as_many_steps(training: config.Training, with_all: Run) -> config.Training:
    """As many optimiser steps as the same training takes on all labels of the seed."""
    rows = examples.read(with_all.needed("finetune/rows").output / "train", LABELS)
    n_steps = len(schedule.steps(rows.length, rows.draw, training))
    return training.model_copy(update={"epochs": float(n_steps), "max_steps": n_steps})  # an epoch has a step or more


def _each(
    run: Run, work: Callable[..., None], units: Sequence[tuple[Any, ...]], in_tasks: bool, failed: Failures
) -> None:
    """`work` on every unit (a cell, and what of it); a unit that fails does not stop the others."""
    if not units:
        return
    cluster, work = run.cluster, quiet(work)
    if in_tasks and not isinstance(cluster, Inline):
        at_once, cpus = run.settings.resources.concurrent_arms, run.settings.resources.cpus_per_worker
        todo = [(cell.inline(), *rest) for cell, *rest in units]
        outcomes = cluster.each(work, todo, at_once, cluster.worker(at_once, cpus, 1))
    else:
        outcomes = _one_by_one(work, units)
    for n, (unit, error) in enumerate(outcomes, start=1):
        cell, *of_it = units[unit]
        name = str(cell.folder.relative_to(run.folder / "cells").joinpath(*of_it))
        run.say(f"{n}/{len(units)} {name}: {'done' if error is None else 'failed'}")
        if error is not None:
            failed.note(name, error)


def _one_by_one(work: Callable[..., None], units: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Exception | None]]:
    for n, unit in enumerate(units):
        try:
            work(*unit)
            yield n, None
        except Exception as error:
            yield n, error


def _predict(run: Run, arm: str) -> None:
    """As `_learn`, but no model is kept."""
    _learn(run, arm, n_kept=0)


def _try(run: Run, arm: str) -> None:
    """As `_learn`, of a candidate: one that diverges has lost, and nothing else has."""
    try:
        _learn(run, arm)
    except Exception:  # of Ray Train's, too, which wraps what a worker raised
        if not finetunings.has_diverged(run):
            raise
        run.say(f"{run.folder.name} diverged, and is not chosen")


def _learn(run: Run, arm: str, n_kept: int = 1) -> None:
    """Reconstruction, fine-tunings and predictions of an arm of a cell; the models of the first repeats are kept."""
    own = run.of(arm)
    driver.renew_students(own, arm)
    driver.learn(run, arm)
    driver.evaluate(run, arm)
    for student in own.students(arm)[n_kept:]:  # only their predictions are needed
        folder = own.step(f"finetune/{student}").path
        if folder.is_relative_to(run.folder):  # never delete a model in another cell's folder
            integrity.drop(folder, "model")


def by_budget(runs: Mapping[Cell, Run], finetuning: str | None = None) -> tuple[list[Run], dict[int, list[Run]]]:
    """Runs with all labels, one per seed; and those with fewer, by labels per task. All of one fine-tuning."""
    of_one = {cell: run for cell, run in runs.items() if cell.finetuning == finetuning}
    fewer: dict[int, list[Run]] = {}
    for cell, run in of_one.items():
        if cell.budget is not None:
            fewer.setdefault(cell.budget, []).append(run)
    return [run for cell, run in of_one.items() if cell.budget is None], fewer


def by_finetuning(runs: Mapping[Cell, Run]) -> dict[str, dict[int | None, list[Run]]]:
    """Runs of each fine-tuning by labels per task (None: all), one per seed; none if there is one fine-tuning alone."""
    by: dict[str, dict[int | None, list[Run]]] = {}
    for cell, run in runs.items():
        if not cell.labels_only:
            by.setdefault(cell.finetuning or DEFAULT, {}).setdefault(cell.budget, []).append(run)
    return by if len(by) > 1 else {}
