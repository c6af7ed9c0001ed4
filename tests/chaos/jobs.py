"""The jobs that are disturbed: commands over a run so small that each takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe import cli
from raypipe.errors import ExitCode, InputError
from raypipe.runs import lock
from raypipe.runs.progress import silent
from raypipe.settings import configfile
from raypipe.tuning import base_run, search, studies, trial, trial_tables
from raypipe.tuning.backbones import backbones
from raypipe.tuning.plan import plans
from raypipe.tuning.space import Space
from tests.small_run import settings

NAME = "small"
TRAINING = {"max_steps": 4, "batch_rows": 8, "learning_rate": 1e-3, "checkpoint_every": 1}
RATIO = "arms.decselfmask.masking.ratio"
# Without progress: without time of a CPU, which other work does not take away for so long; with Ray, actors start
LIMIT_S, RAY_LIMIT_S = 3, 60


@dataclass(frozen=True)
class Job:
    """A command, and which steps of a whole run it finds missing."""

    name: str
    work: Callable[[Path], object]  # gets the config
    missing: tuple[str, ...]  # folders that are deleted from a finished run; "." is all of it
    stages: tuple[str, ...]  # of faults.STAGES: what it calls
    remade: tuple[str, ...] = ()  # folders of steps that it makes again if damaged; empty: all that were missing
    is_partial: bool = False  # it goes on with other cells or trials, and says in the end that some are missing

    def outputs(self, runs: Path) -> list[Path]:
        """Files of finished steps that the job would make again."""
        made = [runs / NAME / name for name in self.remade or self.missing if name != "report"]
        paths = sorted(path for folder in made for path in folder.rglob("*") if {"data", "model"} & set(path.parts))
        return [path for path in paths if path.suffix in (".parquet", ".safetensors")]

    def begin(self, whole: Path, runs: Path) -> None:
        """Put the folder of runs as the job finds it; `whole`: one with a finished run."""
        shutil.rmtree(runs, ignore_errors=True)
        if "." in self.missing:
            runs.mkdir()
            return
        shutil.copytree(whole, runs)
        for name in self.missing:
            shutil.rmtree(runs / NAME / name, ignore_errors=True)


def _command(*words: str) -> Callable[[Path], object]:
    return lambda config: cli.app([*words, "--config", str(config)], standalone_mode=False)


def _search(config: Path) -> None:
    """Two trials as Ray Tune's workers run them, one after the other in this process; then the tables."""
    (plan,) = plans(
        Space("space.py", {RATIO: {"grid_search": [0.1, 0.3]}}), backbones(configfile.written(config).value, [])
    )
    whole = plan.backbone.config({})
    with lock.held(Path(whole.runs) / whole.name):
        folder = studies.claim(plan)
        base = base_run.prepare(plan, folder, silent)
        for ratio in (0.1, 0.3):
            try:
                trial.run(
                    search.context_of(plan, folder), base_run.for_workers(base), {RATIO: ratio}, lambda record: None
                )
            except trial.TrialError as failure:  # as search.failed
                raise InputError(str(failure), ExitCode.PARTIAL) from None
        root = studies.root_of(whole)
        found = studies.collect(whole.name, plan.space, root, base, [studies.facts_of(plan, base, folder)])
        trial_tables.save(found, root)
        studies.write_best(found, plan, folder)


_TRAIN = ("optimiser step", "checkpoint")
JOBS = (
    Job("attribution", _command("attribute"), ("attribute",), ("attribution",)),
    Job("masking", _command("mask"), ("mask",), ("attribution", "masking")),
    Job("training", _command("train", "--arm", "decselfmask"), ("train",), ("rendering", *_TRAIN),
        ("train/decselfmask",)),
    Job("fine-tuning", _command("finetune", "--arm", "decselfmask"), ("finetune/decselfmask",), _TRAIN),
    Job("evaluation", _command("evaluate", "--arm", "decselfmask"), ("evaluate/decselfmask",), ("scoring",)),
    Job("whole run", _command("run"), (".",), ("attribution", "masking", "rendering", "scoring", *_TRAIN)),
    Job("comparison", _command("compare"), ("cells", "report"), ("attribution", "masking", "scoring", *_TRAIN),
        is_partial=True),
    Job("search", _search, ("tune",), ("masking", "rendering", "scoring", *_TRAIN),
        ("tune/llama/base/attribute", "tune/llama/base/finetune/scorer"), is_partial=True),
)  # fmt: skip


def write_config(path: Path, runs: Path, ray: bool = False) -> None:
    """One config for all jobs."""
    sections: dict[str, Any] = {
        f"{section}__{key}": value for section in ("train", "finetune") for key, value in TRAINING.items()
    }
    resources = {
        "ray": ray,
        "cpus_per_worker": 1.0,
        "rows_per_block": 4,
        "no_progress_timeout_s": RAY_LIMIT_S if ray else LIMIT_S,
    }
    sections |= {f"resources__{key}": value for key, value in resources.items()}
    small = settings(runs, name=NAME, comparison__seeds=1, data__synthetic__n_unlabelled=12, **sections)
    path.write_text(configfile.dump(small))
