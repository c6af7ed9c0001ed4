"""Continual pretraining: nothing is hidden."""

from __future__ import annotations

from dataclasses import replace

from raypipe.masking.case import Case
from raypipe.masking.spans import NOTHING, Hidden


def cpt(case: Case) -> Hidden:
    """The sequences of the arm that it matches, unmasked: the two differ in masking alone, as in DecSelfMask's code.

    The spans of that arm stay in the plan, because they say which part of the note each example shows; `n_masked` is 0.
    """
    return NOTHING if case.reference is None else replace(case.reference, n_masked=0)
