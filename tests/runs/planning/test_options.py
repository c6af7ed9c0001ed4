"""What the command line may say, and every refusal at once."""

from __future__ import annotations

import pytest

from raypipe.errors import InputError
from raypipe.runs.planning.options import parsed


@pytest.mark.parametrize(("text", "gpus"), [("1", (1,)), ("1,8,64", (1, 8, 64)), ("1 8", (1, 8))])
def test_lists_of_gpus(text: str, gpus: tuple[int, ...]) -> None:
    assert parsed(text, None, 0.4, None, None, None).gpus == gpus


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("80GB", 80e9), ("40GiB", 40 * 2**30), ("1.5 TB", 1.5e12), ("16g", 16e9)]
)
def test_sizes_of_memory(text: str, n_bytes: float) -> None:
    assert parsed("1", None, 0.4, text, None, None).memory == n_bytes


@pytest.mark.parametrize("peak", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_peak_is_a_number_above_zero(peak: float) -> None:
    with pytest.raises(InputError, match="--peak"):
        parsed("1", peak, 0.4, None, None, None)


def test_all_problems_at_once() -> None:
    with pytest.raises(InputError) as error:
        parsed("many", -1.0, 2.0, "a lot", None, 0)
    assert [problem.where for problem in error.value.problems] == ["--gpus", "--memory", "--peak", "--share", "--notes"]
