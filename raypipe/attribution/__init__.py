"""Which words of a note matter for a question: relevance of every note token, in plain torch, without Ray.

`AttributionEngine` is what a stage calls, `METHODS` what it can do (registry.py), `NoteAttribution` what it says.
"""

from raypipe.attribution.engine import AttributionEngine
from raypipe.attribution.method import NoteAttribution
from raypipe.attribution.registry import METHODS

__all__ = ["METHODS", "AttributionEngine", "NoteAttribution"]
