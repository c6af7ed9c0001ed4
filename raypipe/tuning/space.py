"""A search space: a Python file, written by the user, that names the values a study tries (tune_spaces/).

    PARAM_SPACE   dotted config keys -> ray.tune samplers or plain values     (required)
    METRIC        what ranks the trials: dev_macro_f1 or dev_auc                                   (dev_macro_f1)
    MODE          max: both are the better the higher                                              (max)
    NUM_SAMPLES   draws of the samplers that are no grid                      (1)
    ARM           the arm that is searched             (the arm in PARAM_SPACE's keys; else the only one that masks;
                                                        else the only one that masks by relevance)
    SCHEDULER     a ray.tune scheduler, such as ASHA   (none: every trial runs to its end)
    SEARCH        a ray.tune search algorithm          (random)
    STOP          a ray.tune stop rule                 (none)
    MODELS        backbones, as `--models` takes them  (the config's)

Loading a space runs the file. It is taken only from a path that the user names on the command line.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypipe.errors import InputError, Problem
from raypipe.evaluation.resampling import Measure
from raypipe.settings.yamlfile import did_you_mean
from raypipe.tuning import samplers

METRICS: dict[str, Measure] = {"dev_macro_f1": "macro_f1", "dev_auc": "auc"}  # what may rank trials, by its measure
MEASURES: dict[Measure, str] = {"macro_f1": "macro F1", "auc": "AUC"}  # as pages call them
METRIC, MODE = "dev_macro_f1", "max"
NAMES = ("PARAM_SPACE", "METRIC", "MODE", "NUM_SAMPLES", "ARM", "SCHEDULER", "SEARCH", "STOP", "MODELS")
OPTIONAL = ("METRIC", "NUM_SAMPLES", "ARM", "SCHEDULER", "SEARCH", "STOP")  # a Space takes them as they are
LAYER = "attribution.layer"
# Keys that belong to the study as a whole; what decides which notes are scored; and what no trial reads.
CLOSED = ("name", "runs", "data", "tune", "resources", "evaluation", "model", "pretrain",
          "faithfulness", "comparison", "probe", "tracking", "canaries")  # fmt: skip


@dataclass(frozen=True)
class Space:
    """What a study tries."""

    path: str
    params: dict[str, Any]
    num_samples: int = 1
    arm: str | None = None
    metric: str = METRIC
    scheduler: Any = None
    search: Any = None
    stop: Any = None
    models: tuple[str, ...] = ()
    doc: str = field(default="", compare=False)  # the file's docstring

    @property
    def measure(self) -> Measure:
        """The metric as the evaluation calls it, on whatever split."""
        return METRICS[self.metric]

    def described(self) -> dict[str, Any]:
        """What must not change when a study goes on, as JSON."""
        return {
            "params": {key: samplers.described(value) for key, value in self.params.items()},
            "num_samples": self.num_samples,
            "arm": self.arm,
            "metric": [self.metric, MODE],
            **{name: samplers.plain(getattr(self, name)) for name in ("scheduler", "search", "stop")},
        }


def load(path: str | Path) -> Space:
    """Run the file and take its names. Raises `InputError` with all that is wrong with their form."""
    name = str(path)
    if not Path(path).is_file():
        raise InputError([Problem(name, "no such file; spaces are Python files such as tune_spaces/smoke.py")])
    try:
        names = runpy.run_path(name)
    except (Exception, SystemExit) as error:  # a space that ends the process would end the search, as if it were done
        what = f"cannot be run: {type(error).__name__}: {error}"  # the user's own file: nothing of a note
        raise InputError([Problem(name, what)]) from None
    problems = _problems(names)
    if problems:
        raise InputError([Problem(f"{name}: {problem.where}", problem.what) for problem in problems])
    doc, models = str(names.get("__doc__") or "").strip(), tuple(names.get("MODELS", ()))
    optional = {n.lower(): names[n] for n in OPTIONAL if n in names}
    return Space(name, dict(names["PARAM_SPACE"]), models=models, doc=doc, **optional)


def _problems(names: Mapping[str, Any]) -> list[Problem]:
    """Names that no space has, and values of the wrong kind."""
    capitals = [n for n in names if n.isupper() and not n.startswith("_")]
    out = [Problem(n, f"is not a name of a space{did_you_mean(n, NAMES)}") for n in capitals if n not in NAMES]
    params = names.get("PARAM_SPACE")
    if not isinstance(params, Mapping) or not params or not all(isinstance(key, str) for key in params):
        return [*out, Problem("PARAM_SPACE", "must map dotted config keys to ray.tune samplers, at least one")]
    for key, sampler in params.items():
        where = f"PARAM_SPACE[{key!r}]"
        if key.split(".")[0] in CLOSED:
            out.append(Problem(where, "is the same for all trials of a study; set it in the config"))
        if isinstance(sampler, Mapping) and not samplers.is_grid(sampler):
            out.append(Problem(where, "must be a sampler or a value; write nested keys with dots"))
        elif samplers.is_function(sampler):
            what = "is a function, which cannot be compared with another one; take a grid, a choice or a range"
            out.append(Problem(where, what))
        elif not samplers.values(sampler):
            out.append(Problem(where, "has no values"))
    if names.get("METRIC", METRIC) not in tuple(METRICS):
        out.append(Problem("METRIC", f"must be {' or '.join(METRICS)}: trials report nothing else"))
    if names.get("MODE", MODE) != MODE:
        out.append(Problem("MODE", f"must be {MODE}: metrics are the better the higher"))
    samples, models = names.get("NUM_SAMPLES", 1), names.get("MODELS", ())
    if not isinstance(samples, int) or samples < 1:
        out.append(Problem("NUM_SAMPLES", "must be a whole number above 0"))
    if not isinstance(names.get("ARM"), str | None):
        out.append(Problem("ARM", "must be the name of an arm"))
    if not isinstance(models, list | tuple) or not all(isinstance(model, str) for model in models):
        out.append(Problem("MODELS", "must be a list of names, as --models takes them"))
    return out
