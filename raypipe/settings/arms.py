"""What the arms of a run ask of the steps that they share, and which of it bears on one arm alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.masking.requirements import needs
from raypipe.masking.strategy import GENERAL, LEXICON, RELEVANCE, TAGS
from raypipe.notes import storage
from raypipe.settings.config import Arm, Config, Masking, PseudoLabels

PRETRAINING = "pretraining"  # as statistics.general_counts: count that corpus
ALL = "*"  # no arm can have this name


def masking_of(settings: Config) -> dict[str, Masking]:
    """The masking of the arms that are masked by this run's relevance (run.Run.of: others have a run of their own)."""
    arms = {name: arm for name, arm in settings.arms.items() if arm.attribution is None}
    return {name: arm.masking for name, arm in arms.items() if arm.masking is not None}


def pseudo_of(settings: Config) -> dict[str, PseudoLabels]:
    """The arms that learn the scorer's own answers."""
    return {name: arm.pseudo_labels for name, arm in settings.arms.items() if arm.pseudo_labels is not None}


def with_matched(arms: Mapping[str, Arm], name: str) -> list[str]:
    """The arm, and the arms whose ratio it copies, in the order of `arms`."""
    wanted = {name}
    while True:
        more = {m.match_ratio_to for arm in wanted if (m := arms[arm].masking) and m.match_ratio_to}
        if more <= wanted:
            return [arm for arm in arms if arm in wanted]
        wanted |= more


def masks_of_all(settings: Config) -> dict[str, Any]:
    """What bears on the masks of every arm, whichever arm brings it along.

    A note is asked tasks, and has a plan for each, if some arm needs its relevance; it is left out if it holds a mark
    that some arm writes, or lacks the tags that some arm needs; words that match an arm's PHI patterns are not counted.
    """
    arms = masking_of(settings)
    marks = {mark for masking in arms.values() if not isinstance(masking.sentinels, str) for mark in masking.sentinels}
    patterns = {pattern for masking in arms.values() for pattern in masking.phi_patterns}
    return {"needs": sorted(needs(arms) & {RELEVANCE, TAGS}), "sentinels": sorted(marks), "phi": sorted(patterns)}


def behind(step: str, student: str, settings: Config) -> dict[str, Any]:
    """What a step's output owes to the arms, by arm, and under ALL what it owes to them together."""
    if step in ("mask", "train/rows"):
        return {name: _masks(masking, settings) for name, masking in masking_of(settings).items()} | {
            ALL: masks_of_all(settings)
        }
    if step == "pseudo":
        return {name: {"pseudo_labels": kept.model_dump(mode="json")} for name, kept in pseudo_of(settings).items()}
    if student not in settings.arms:
        return {}
    arm = settings.arms[student]
    if not arm.reconstructs:
        return {student: {"start": arm.start}}
    own = arm.model_dump(mode="json")
    if arm.masking is None:
        return {student: own}
    masking = {name: settings.arms[name].masking for name in with_matched(settings.arms, student)}
    found = {name: _masks(m, settings) for name, m in masking.items() if m is not None}
    return found | {student: own | found[student], ALL: masks_of_all(settings)}


def _masks(masking: Masking, settings: Config) -> dict[str, Any]:
    """Of one arm, with the files that it reads beside the notes."""
    wanted, counts = needs({"": masking}), settings.statistics.general_counts
    files = [masking.mslm.lexicon if LEXICON in wanted else None, counts if GENERAL in wanted else None]
    listed = {path: storage.listing(path, "arms") for path in files if path and path != PRETRAINING}
    return {"masking": masking.model_dump(mode="json"), **({"files": listed} if listed else {})}
