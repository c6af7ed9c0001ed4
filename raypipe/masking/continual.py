"""Continual pretraining: nothing is hidden."""

from __future__ import annotations

from dataclasses import replace

from raypipe.masking.case import Case
from raypipe.masking.spans import NOTHING, Hidden


def cpt(case: Case) -> Hidden:
    """The sequences of the arm it matches with their masks refilled (1.5 [code]): only masking differs.

    The spans of that arm are kept, for they say which part of the note each example showed; `n_masked` is 0.
    """
    return NOTHING if case.reference is None else replace(case.reference, n_masked=0)
