"""Checks of attribution settings that need no model: which layers are valid, and which keys are read."""

from __future__ import annotations

from collections.abc import Sequence

from raypipe.attribution.method import SOME_READ
from raypipe.attribution.registry import method_of
from raypipe.settings.config import Attribution


def masking_layer(attribution: Attribution, depth: int) -> int:
    """The number of the layer that masking reads: 0 if the method has no layers or if `all` are stored."""
    layer = 0 if method_of(attribution).reads(attribution) == "none" else attribution.layer
    return round(layer * depth) if isinstance(layer, float) else 0 if layer == "all" else layer


def valid_layers(attribution: Attribution, depth: int) -> list[int]:
    """Layers at which the method is valid (docs/method.md, section 4.3).

    All families of models/families.py but olmo2 normalise before each block, so what enters the last block acts through
    a normalisation alone, and no token of the note reaches the answer after it; `engine.resolve_layers` measures the
    same. For olmo2 the sum of gradient x activation would be valid one layer deeper than this says.
    """
    reads = method_of(attribution).reads(attribution)
    return list(range({"none": depth + 1, "mixing": depth, "scale": depth - 1}[reads]))


def stored_layers(attribution: Attribution, depth: int) -> tuple[int, ...]:
    """Layers whose relevance a run stores."""
    if attribution.keep == "all" or attribution.layer == "all":
        return tuple(valid_layers(attribution, depth))
    return (masking_layer(attribution, depth),)


def valid_at(attribution: Attribution, depth: int) -> str:
    """`valid_layers` as text for a message."""
    how = f" with reduction {attribution.norm}" if "reduction" in method_of(attribution).settings else ""
    return f"{attribution.method}{how} is valid at {ranges(valid_layers(attribution, depth)) or 'none'}"


def in_vain(attribution: Attribution) -> list[str]:
    """Keys that differ from the default although the method does not read them."""
    default, ignored = Attribution(), SOME_READ - method_of(attribution).settings
    return [key for key in sorted(ignored) if getattr(attribution, key) != getattr(default, key)]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: 0..3, 5."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
