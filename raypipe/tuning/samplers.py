"""The values that a sampler of a space can yield. A sampler is recognised by its attributes, without importing Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

GRID = "grid_search"
DRAWS = 8  # of a sampler that has no ends


def is_sampler(value: Any) -> bool:
    """A grid or a ray.tune domain (a plain value is none: it is the same in every trial)."""
    return is_grid(value) or (hasattr(value, "sample") and hasattr(value, "sampler"))


def is_function(value: Any) -> bool:
    """A draw by the user's own code, which may yield anything."""
    return is_sampler(value) and hasattr(value, "func")


def is_grid(value: Any) -> bool:
    """Every value of a grid is tried, so grids multiply the number of trials."""
    return isinstance(value, Mapping) and set(value) == {GRID}


def values(sampler: Any) -> list[Any]:
    """All values of a grid or a choice; the ends of a range; a few draws of anything else; else the value itself."""
    if is_grid(sampler):
        return list(sampler[GRID])
    if not is_sampler(sampler):
        return [sampler]
    if hasattr(sampler, "categories"):
        return list(sampler.categories)
    low, high = getattr(sampler, "lower", None), getattr(sampler, "upper", None)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return [sampler.sample() for _ in range(DRAWS)]
    if not hasattr(sampler.sampler, "q"):  # a plain range does not reach its upper end
        high = high - 1 if isinstance(high, int) and isinstance(low, int) else math.nextafter(high, low)
    return [low, high]


def described(sampler: Any) -> Any:
    """A sampler as JSON. A study that goes on must have the same."""
    if is_grid(sampler) or not is_sampler(sampler):
        return {"values": values(sampler)}
    if hasattr(sampler, "categories"):
        return {"choice": values(sampler)}
    inner = getattr(sampler.sampler, "sampler", sampler.sampler)  # of a quantized one
    ends = {name: getattr(sampler, name) for name in ("lower", "upper") if hasattr(sampler, name)}
    return {type(inner).__name__.strip("_").lower(): ends | vars(inner), "q": getattr(sampler.sampler, "q", None)}


def plain(thing: Any) -> Any:
    """A scheduler or search algorithm as JSON: its class and its simple public attributes."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    attributes = {} if callable(thing) else getattr(thing, "__dict__", {})
    return {type(thing).__name__: {k: v for k, v in attributes.items() if isinstance(v, str | int | float | bool)}}
