"""The values that a sampler can yield."""

from __future__ import annotations

from typing import Any

from raypipe.tuning import samplers


def test_what_samplers_can_yield() -> None:
    from ray import tune

    def ends(sampler: Any) -> list[Any]:
        return samplers.values(sampler)

    assert ends(tune.choice(["a", "b"])) == ["a", "b"]
    assert ends(tune.grid_search([1, 2])) == [1, 2]
    assert ends(tune.randint(1, 5)) == [1, 4]
    assert ends(tune.quniform(0.0, 1.0, 0.5)) == [0.0, 1.0]
    low, high = ends(tune.uniform(0.0, 1.0))
    assert low == 0.0
    assert 0.999 < high < 1.0
    assert len(ends(tune.randn())) == samplers.DRAWS
    assert ends(3) == [3]
