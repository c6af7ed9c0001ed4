"""How probed models are called on a page."""

from __future__ import annotations

from raypipe.findings.probing import STAGES

POOLINGS = {"last": "last token before the answer", "mean": "mean over the note"}
NAMES = {"scorer": "scorer (labels only)"}


def shown(student: str) -> str:
    """`train/decselfmask` -> `decselfmask, after reconstruction`."""
    stage, slash, arm = student.partition("/")
    arm = NAMES.get(arm, arm)
    return f"{arm}, {STAGES.get(stage, stage)}" if slash else student
