"""A file that is no space is refused; a space that changed is not taken for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.tuning import space
from tests.tuning.demo import space_of


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PARAM_SPAC = {}", "Did you mean 'PARAM_SPACE'?"),
        ('PARAM_SPACE = {"evaluation.split": "test"}', "the same for all trials"),
        ('PARAM_SPACE = {"faithfulness.questions": 9, "train.seed": 1}', "the same for all trials"),
        ('PARAM_SPACE = {"comparison.seeds": 9, "train.seed": 1}', "the same for all trials"),
        ('PARAM_SPACE = {"probe.folds": 9, "train.seed": 1}', "the same for all trials"),
        ('PARAM_SPACE = {"train.epochs": tune.sample_from(lambda _: 1.0)}', "is a function"),
        ('PARAM_SPACE = {"seed": 1}\nMETRIC = "test_macro_f1"', "must be dev_macro_f1 or dev_auc"),
        ('PARAM_SPACE = {"seed": 1}\nMETRIC = ["dev_auc"]', "must be dev_macro_f1 or dev_auc"),
        ('PARAM_SPACE = {"seed": 1}\nMODE = "min"', "must be max"),
        ('PARAM_SPACE = {"seed": 1}\nNUM_SAMPLES = 0', "above 0"),
        ('PARAM_SPACE = {"seed": tune.grid_search([])}', "has no values"),
        ('PARAM_SPACE = {"train": {"epochs": 1}}', "write nested keys with dots"),
        ("raise KeyError('x')", "cannot be run: KeyError"),
        ("raise SystemExit(0)", "cannot be run: SystemExit"),
        ('PARAM_SPACE = {"seed": 1}\nMODELS = 7', "must be a list of names"),
        ('PARAM_SPACE = {"seed": 1}\nARM = 5', "must be the name of an arm"),
    ],
)
def test_a_file_that_is_no_space(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        space_of(tmp_path, text)


def test_what_a_space_names_is_taken(tmp_path: Path) -> None:
    given = space_of(tmp_path, 'PARAM_SPACE = {"seed": 1}\nMETRIC = "dev_auc"\nNUM_SAMPLES = 3')
    assert (given.metric, given.measure, given.num_samples) == ("dev_auc", "auc", 3)


def test_a_changed_space_is_described_otherwise() -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def said(**changes: Any) -> dict[str, Any]:
        return space.Space("x.py", **{"params": {"a": tune.uniform(0, 1)}, **changes}).described()

    assert said() == space.Space("y.py", {"a": tune.uniform(0, 1)}).described()
    every = [
        said(),
        said(params={"a": tune.uniform(0, 2)}),
        said(params={"a": tune.loguniform(0.1, 1)}),
        said(params={"a": tune.grid_search([0, 1])}),
        said(params={"a": tune.choice([0, 1])}),
        said(params={"a": tune.randn(0.1, 0.01)}),
        said(params={"a": tune.randn(0.3, 0.05)}),
        said(params={"a": tune.qrandn(0.3, 0.05, 0.1)}),
        said(params={"a": tune.qrandn(0.4, 0.05, 0.1)}),
        said(num_samples=2),
        said(metric="dev_auc"),
        said(scheduler=ASHAScheduler()),
        said(stop={"training_iteration": 2}),
    ]
    assert all(a != b for i, a in enumerate(every) for b in every[:i])
