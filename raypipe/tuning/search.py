"""`raypipe tune`: Ray Tune around the trials, one study per model. The same command again goes on.

Ray keeps its state as pickles, so it is restored only where a searcher, a scheduler or a stopper needs it, and only
from a folder that nobody else can write; results are read from JSON alone (trial_tables.py).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.guard.folders import open_to_others, why_open
from raypipe.guard.quiet import quiet
from raypipe.runs.run import Run
from raypipe.settings.config import Config
from raypipe.stream import cluster
from raypipe.tuning import base_run, studies, trial, trial_tables
from raypipe.tuning.base_run import Say
from raypipe.tuning.plan import StudyPlan, demand_few
from raypipe.tuning.space import MEASURES, MODE, Space
from raypipe.tuning.trial import StudyContext
from raypipe.tuning.trial_tables import FAILED, RUNNING, STOPPED, Search

RAY = "ray"  # the folder of Tune's own state
QUIET = {
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "5",  # how old Tune's state may be after a crash
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours (guard/command.py)
}


def tune(plans: list[StudyPlan], say: Say) -> tuple[Search, Path]:
    """Search every model. Returns the search and its folder, which then holds the tables and each model's best.yaml.

    Raises `InputError` before anything starts if a study has too many trials, or if its folder was made by another
    space or config, or by another user. Failed trials do not raise: see `failed`.
    """
    demand_few(plans)
    folders = [studies.claim(plan) for plan in plans]
    _demand_own(folders)
    config = plans[0].backbone.config({})
    root, models = studies.root_of(config), studies.searched_before(folders)
    for plan, folder in zip(plans, folders, strict=True):
        base = base_run.prepare(plan, folder, say)
        models.append(studies.facts_of(plan, base, folder))
        trial_tables.save(studies.collect(config.name, plan.space, root, base, models), root)  # for who looks meanwhile
        _study(plan, folder, base, say)
        search = studies.collect(config.name, plan.space, root, base, models)
        trial_tables.save(search, root)
        studies.write_best(search, plan, folder)
    return search, root


def failed(search: Search) -> InputError | None:
    """The error to end with if trials failed more often than `tune.max_failures` allows."""
    problems = [
        Problem(f"{model.name}/trials/{row['trial_id']}", str(row["error"]))
        for model in search.models
        for row in search.of(model.name, FAILED)
    ]
    return InputError(problems, ExitCode.PARTIAL) if problems else None


def _study(plan: StudyPlan, folder: Path, base: Run, say: Say) -> None:
    """All trials of one model; those that finished before are not run again."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    from ray import tune as ray_tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `failed` reports failures, without a traceback
    config = plan.backbone.config({})
    joined = cluster.join(config.resources.model_copy(update={"ray": True}))
    gpus = getattr(joined, "gpus", 0.0)
    share = {"cpu": config.tune.cpus_per_trial, "gpu": config.tune.gpus_per_trial if gpus else 0.0}
    context = context_of(plan, folder)
    trainable = ray_tune.with_parameters(_trainable, context=context, base=base_run.for_workers(base))
    trainable = ray_tune.with_resources(trainable, {key: value for key, value in share.items() if value})
    tuner = _restored(folder / RAY, trainable, plan, say)
    if tuner is None:
        tuner = ray_tune.Tuner(
            trainable,
            param_space=plan.params,
            tune_config=_tune_config(plan.space, config, getattr(joined, "cpus", 1.0), gpus),
            run_config=ray_tune.RunConfig(
                name=RAY,
                storage_path=str(folder),
                failure_config=ray_tune.FailureConfig(max_failures=config.tune.max_failures),
                stop=plan.space.stop,
                verbose=0,
                callbacks=[_progress(plan, say)],
            ),
        )
    _complete_records(context, tuner.fit())


def _restored(state: Path, trainable: Any, plan: StudyPlan, say: Say) -> Any:
    """Tune as it was left; None if it begins anew: each trial has a record, so those that finished only report again.

    A grid or random draws leave nothing to restore, and with Tune's state would come the number of trials at once that
    the interrupted command had. State that names classes of another version of raypipe is set aside.
    """
    from ray import tune as ray_tune

    if not ray_tune.Tuner.can_restore(str(state)):
        return None
    if plan.space.search is None and plan.space.scheduler is None and plan.space.stop is None:
        shutil.rmtree(state)
        say(f"{plan.backbone.name}: going on; trials that are finished report again")
        return None
    try:
        tuner = ray_tune.Tuner.restore(str(state), trainable=trainable, resume_unfinished=True, resume_errored=True)
    except (AttributeError, ImportError):
        shutil.rmtree(aside := state.with_name(f"{RAY}.other_version"), ignore_errors=True)
        state.rename(aside)
        say(f"{plan.backbone.name}: Tune's state is another version's; finished trials are read, the others begin anew")
        return None
    say(f"{plan.backbone.name}: going on")
    return tuner


def context_of(plan: StudyPlan, folder: Path) -> StudyContext:
    """What the workers of a study get: the config and its model, not the space's own objects."""
    config = plan.backbone.config({})
    slim = replace(plan, space=Space(plan.space.path, {}, metric=plan.space.metric), params={})
    # All other resources stay those of the base run. They decide the device, on which the output of its steps depends:
    # with another one, a trial could not share them.
    resources = config.resources.model_copy(update={"ray": False})
    reports_epochs = plan.space.scheduler is not None or plan.space.stop is not None
    return StudyContext(config.name, slim, str(folder), resources, reports_epochs)


@quiet
def _trainable(values: Mapping[str, Any], context: StudyContext, base: Run) -> None:
    """One trial, in a worker of Ray Tune."""
    from ray import tune as ray_tune

    trial.run(context, base, values, ray_tune.report)


def _tune_config(space: Space, config: Config, cpus: float, gpus: float) -> Any:
    from ray import tune as ray_tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    at_once = config.tune.concurrent_trials
    if at_once == "auto":
        by_cpu = cluster.cores(cpus) / config.tune.cpus_per_trial
        at_once = max(1, int(gpus / config.tune.gpus_per_trial if gpus and config.tune.gpus_per_trial else by_cpu))
    search = space.search or BasicVariantGenerator(random_state=config.seed, max_concurrent=at_once)
    return ray_tune.TuneConfig(
        metric=space.metric,
        mode=MODE,
        num_samples=space.num_samples,
        scheduler=space.scheduler,
        search_alg=search,
        max_concurrent_trials=at_once if space.search is not None else None,
        reuse_actors=True,  # a worker that has imported torch and transformers takes the next trial
        trial_name_creator=lambda trial: trial.trial_id,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def _progress(plan: StudyPlan, say: Say) -> Any:
    from ray.tune import Callback

    model, space = plan.backbone.name, plan.space

    class Progress(Callback):
        """A line per trial that ends. Those that ended before the search was interrupted count, too."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended = 1 + sum(other.is_finished() for other in trials if other is not trial)
            value = (trial.last_result or {}).get(space.metric)
            score = "" if value is None else f": dev {MEASURES[space.measure]} {100 * value:.1f}"
            say(f"{model}: trial {ended} of {plan.n_trials}{score}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            say(f"{model}: a trial failed (attempt {trial.num_failures})")

    return Progress()


def _complete_records(context: StudyContext, results: Any) -> None:
    """Complete the records of trials that the scheduler stopped, or whose worker died.

    They could not write how they ended themselves. `results`: Ray Tune's, of all trials of the study.
    """
    for result in results:
        if not result.config:
            continue
        folder = context.trial_folder(result.config)
        record = trial.read(folder)
        if result.error is not None and record.get("status", RUNNING) == RUNNING:
            error = f"its worker died ({type(result.error).__name__})"
            trial.write(folder, {**context.new_record(result.config), **record, "status": FAILED, "error": error})
        elif record.get("status") == RUNNING:
            trial.write(folder, record | {"status": STOPPED})
            trial.forget_steps(folder)


def _demand_own(folders: list[Path]) -> None:
    """Ray's state is pickle, of the search and of each trial: whoever can write it decides what loading it runs."""
    problems = []
    for state in [folder / RAY for folder in folders if (folder / RAY).exists()]:
        own = ((path, why) for path in (state, *state.rglob("*")) if (why := why_open(path, is_own=True)))
        places = [*open_to_others(state.parent), *own]
        what = "a search's stored state is code, and is not restored from there; take the right away (chmod go-w)"
        problems += [Problem(str(path), f"{why}: {what}") for path, why in places]
    if problems:
        raise InputError(problems)
