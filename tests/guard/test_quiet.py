"""A stage that fails tells no note text: not in its message, its causes, or a formatted traceback."""

from __future__ import annotations

import pickle
import traceback
from types import ModuleType
from typing import Any

import pytest

from raypipe.errors import InputError, Problem
from raypipe.evaluation import conformal
from raypipe.guard.quiet import quiet
from raypipe.stream.stages import attribute, count, cut, hold_out, mask, match, probe, render, score, states

CANARY = "Mario Rossi, nato a Pavia"


@quiet
def broken(table: str) -> None:
    try:
        raise KeyError(table)
    except KeyError as error:
        raise ValueError(f"cannot read {table}") from error


@quiet
class Broken:
    def __init__(self, path: str) -> None:
        if path == CANARY:
            raise OSError(path)

    def __call__(self, table: str) -> None:
        broken.__wrapped__(table)  # type: ignore[attr-defined]


@pytest.mark.parametrize("call", [lambda: broken(CANARY), lambda: Broken(CANARY), lambda: Broken("ok")(CANARY)])
def test_an_exception_holds_no_text(call: Any) -> None:
    with pytest.raises(RuntimeError, match=r"stage [Bb]roken: (ValueError|OSError) at ") as caught:
        call()
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY.encode() not in pickle.dumps(error)


def test_the_place_may_lie_in_any_package() -> None:
    @quiet
    def stage(table: str) -> None:
        conformal.threshold(None, 0.1)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match=r"TypeError at raypipe/evaluation/conformal\.py:\d+$"):
        stage(CANARY)


def test_input_errors_pass_without_their_causes() -> None:
    @quiet
    def refused(table: str) -> None:
        try:
            raise ValueError(table)
        except ValueError as error:
            raise InputError([Problem("model.path", "no tensor")]) from error

    with pytest.raises(InputError, match=r"model\.path: no tensor") as caught:
        refused(CANARY)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_results_and_names_stay() -> None:
    @quiet
    def double(number: int) -> int:
        """Docs."""
        return 2 * number

    assert (double(2), double.__name__, double.__doc__) == (4, "double", "Docs.")


@pytest.mark.parametrize("module", [attribute, count, cut, hold_out, mask, match, probe, render, score, states])
def test_every_stage_is_quiet(module: ModuleType) -> None:
    """What takes a table: functions of that argument, and classes that are called."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    stages = [v.__call__ for v in own if isinstance(v, type)]
    stages += [v for v in own if not isinstance(v, type) and "table" in getattr(v, "__annotations__", {})]
    assert stages
    assert all(hasattr(stage, "__wrapped__") for stage in stages)
