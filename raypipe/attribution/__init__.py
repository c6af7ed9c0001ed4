"""Which words of a note matter for a question: relevance of every note token, in plain torch, without Ray.

A stage calls `AttributionEngine`; `METHODS` (registry.py) lists the methods; `NoteAttribution` is a result.
"""

from raypipe.attribution.engine import AttributionEngine
from raypipe.attribution.method import NoteAttribution
from raypipe.attribution.registry import METHODS

__all__ = ["METHODS", "AttributionEngine", "NoteAttribution"]
