"""From relevance to masked examples: which words of a note are hidden, and what the student reads instead.

    Note -> Case -> a strategy -> Hidden spans -> plan         masker.py, once for all students
    plan -> pieces -> windows -> Example                       rendering.py, once for each student

A strategy is one function from a `Case` to `Hidden` spans, and one entry in strategies.py. This package uses numpy
alone: no torch, no Ray.
"""

from __future__ import annotations

from raypipe.masking.masker import Masker
from raypipe.masking.rendering import Renderer
from raypipe.masking.statistics import Statistics
from raypipe.masking.strategies import STRATEGIES

__all__ = ["STRATEGIES", "Masker", "Renderer", "Statistics"]
