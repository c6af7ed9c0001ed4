"""`raypipe tune`: Ray Tune around the trials, one study per model. The same command again goes on.

Ray keeps its state as pickles, so it is restored only from a folder that belongs to the user who asks; results are read
from JSON alone (trial_tables.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.runs.folder import write_json
from raypipe.runs.run import Run
from raypipe.settings.config import Config
from raypipe.stream import cluster
from raypipe.tuning import proxy, studies, trial, trial_tables
from raypipe.tuning.plan import Plan
from raypipe.tuning.space import Space
from raypipe.tuning.trial import RECORD, Job
from raypipe.tuning.trial_tables import FAILED, FINISHED, RUNNING, STOPPED, ModelFacts, Search

RAY = "ray"  # the folder of Tune's own state
QUIET = {
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "5",  # how old Tune's state may be after a crash
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a config are relative to where the user stands
}
Say = Callable[[str], None]


def tune(plans: list[Plan], say: Say) -> tuple[Search, Path]:
    """Search every model; returns what was found and its folder, which then holds the tables and best.yaml.

    Raises `InputError` before anything starts if a study's folder was made by another space or config, or by another
    user; and with `ExitCode.PARTIAL` at the end if trials failed more often than allowed.
    """
    folders = [studies.claim(plan) for plan in plans]
    _demand_own(folders)
    config = plans[0].backbone.config({})
    root, found = studies.root_of(config), None
    known = studies.searched_before(folders)
    for plan, folder in zip(plans, folders, strict=True):
        base = studies.base_run(plan, folder, say)
        facts = studies.model_facts(plan, base, folder)
        _study(_filtered(plan, facts, say), folder, base, say)
        known.append(replace(facts, alone=_alone(plan, folder, base, say)))
        studies.save_facts(folder, known[-1])
        found = studies.collect(config.name, plan.space.doc, root, base, known)
        trial_tables.save(found, root)
        studies.write_best(found, plan, folder)
    assert found is not None  # noqa: S101 (there is a plan for every model)
    return found, root


def failed(search: Search) -> InputError | None:
    """The error to end with if trials failed."""
    problems = [
        Problem(f"{model.name}/trials/{row['trial_id']}", str(row["error"]))
        for model in search.models
        for row in search.of(model.name, FAILED)
    ]
    return InputError(problems, ExitCode.PARTIAL) if problems else None


def _study(plan: Plan, folder: Path, base: Run, say: Say) -> None:
    """All trials of one model; those that finished before are not run again."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    from ray import tune as ray_tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by `failed`, without a traceback
    config = plan.backbone.config({})
    joined = cluster.join(config.resources.model_copy(update={"ray": True}))
    gpus = getattr(joined, "gpus", 0.0)
    share = {"cpu": config.tune.cpus_per_trial, "gpu": config.tune.gpus_per_trial if gpus else 0.0}
    job = job_of(plan, folder)
    trainable = ray_tune.with_parameters(_trainable, job=job, base=studies.shipped(base))
    trainable = ray_tune.with_resources(trainable, {key: value for key, value in share.items() if value})
    path = str(folder / RAY)
    if ray_tune.Tuner.can_restore(path):
        say(f"{plan.backbone.name}: going on")
        tuner = ray_tune.Tuner.restore(path, trainable=trainable, resume_unfinished=True, resume_errored=True)
    else:
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
    _note_ends(job, tuner.fit())


def job_of(plan: Plan, folder: Path) -> Job:
    """What the workers of a study get: the config and its model, not the space's own objects."""
    config = plan.backbone.config({})
    slim = replace(plan, space=Space(plan.space.path, {}), params={})
    # nothing but `ray` may differ from the base run's resources: the device stands in what a step is made from
    resources = config.resources.model_copy(update={"ray": False})
    return Job(config.name, slim, str(folder), resources, plan.space.scheduler is not None)


def _filtered(plan: Plan, facts: ModelFacts, say: Say) -> Plan:
    """The plan without the layers that the proxy leaves out, if the config asks for one."""
    keep = plan.backbone.config({}).tune.proxy_keep
    if keep is None or facts.proxy is None:
        return plan
    kept, left_out = proxy.filtered(plan, facts.proxy, keep)
    say(f"{plan.backbone.name}: the proxy leaves out layers {left_out or 'none'}")
    return kept


def _trainable(values: Mapping[str, Any], job: Job, base: Run) -> None:
    """One trial, in a worker of Ray Tune."""
    from ray import tune as ray_tune

    trial.run(job, base, values, ray_tune.report)


def _tune_config(space: Space, config: Config, cpus: float, gpus: float) -> Any:
    from ray import tune as ray_tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    at_once = config.tune.concurrent_trials
    if at_once == "auto":
        # here, logical CPUs may outnumber the cores (cluster.join)
        real = cpus if os.environ.get("RAY_ADDRESS") else min(cpus, os.cpu_count() or 1)
        by_cpu = real / config.tune.cpus_per_trial
        at_once = max(1, int(gpus / config.tune.gpus_per_trial if gpus and config.tune.gpus_per_trial else by_cpu))
    search = space.search or BasicVariantGenerator(random_state=config.seed, max_concurrent=at_once)
    return ray_tune.TuneConfig(
        metric=space.metric,
        mode=space.mode,
        num_samples=space.num_samples,
        scheduler=space.scheduler,
        search_alg=search,
        max_concurrent_trials=at_once if space.search is not None else None,
        reuse_actors=True,  # a worker that has imported torch and transformers takes the next trial
        trial_name_creator=lambda found: found.trial_id,
        trial_dirname_creator=lambda found: found.trial_id,
    )


def _progress(plan: Plan, say: Say) -> Any:
    from ray.tune import Callback

    model = plan.backbone.name

    class Progress(Callback):
        """A line per trial that ends."""

        done = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.done += 1
            value = (trial.last_result or {}).get("dev_macro_f1")
            score = "" if value is None else f": dev macro F1 {100 * value:.1f}"
            say(f"{model}: trial {self.done} of {plan.n_trials}{score}")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            say(f"{model}: a trial failed (attempt {trial.num_failures})")

    return Progress()


def _note_ends(job: Job, results: Any) -> None:
    """Complete the records of trials that could not: stopped by the scheduler, or dead with their worker."""
    for result in results:
        if not result.config:
            continue
        folder = job.trials / job.settings(result.config).name
        record = trial.read(folder)
        if result.error is not None and record.get("status", RUNNING) == RUNNING:
            told = {"study": job.study, "model": job.plan.backbone.name, "trial_id": folder.name} | record
            folder.mkdir(parents=True, exist_ok=True)
            what = f"its worker died ({type(result.error).__name__})"
            write_json(folder / RECORD, told | {"params": dict(result.config), "status": FAILED, "error": what})
        elif record.get("status") == RUNNING:
            write_json(folder / RECORD, record | {"status": STOPPED})


def _alone(plan: Plan, folder: Path, base: Run, say: Say) -> dict[str, tuple[float, float, float]]:
    """Some trials again with and without what is shared, in a worker like theirs: seconds of each way, by trial."""
    import ray

    tune, before = plan.backbone.config({}).tune, studies.load_facts(folder)
    out = dict(before.alone) if before else {}
    job = job_of(plan, folder)
    gpus = ray.cluster_resources().get("GPU", 0.0) if plan.backbone.config({}).resources.use_gpu is not False else 0.0
    share = {"num_cpus": tune.cpus_per_trial, "num_gpus": tune.gpus_per_trial if gpus else 0.0}
    done = [record for record in studies.records(folder) if record["status"] == FINISHED]
    for record in [r for r in done if r["trial_id"] not in out][: max(0, tune.alone - len(out))]:
        work = partial(trial.repeat, job, studies.shipped(base), record["params"], str(folder / "alone"))
        found = ray.get(ray.remote(**share)(_call).remote(work))
        out[record["trial_id"]] = found.shared, found.attributing, found.alone
        same = "the same" if found.same else "DIFFERENT"
        took = f"{found.shared:.1f} s, with attribution of its own {found.attributing:.1f} s, with nothing shared "
        say(f"{plan.backbone.name}: a trial done again took {took}{found.alone:.1f} s; its predictions were {same}")
    return out


def _call(work: Callable[[], Any]) -> Any:
    return work()


def _demand_own(folders: list[Path]) -> None:
    """Ray's state is pickle, of the search and of each trial: loading it runs what its writer wants."""
    problems = []
    for folder in folders:
        state = folder / RAY
        for path in [state, *state.rglob("*")] if state.exists() else []:
            if os.stat(path).st_uid != os.getuid():
                problems.append(Problem(str(path), "belongs to another user: a search is not restored from there"))
    if problems:
        raise InputError(problems)
