"""What of the arms' settings a step's output depends on, by arm. The table of steps names these functions."""

from __future__ import annotations

from typing import Any

from raypipe.masking.requirements import needs
from raypipe.masking.strategy import GENERAL, LEXICON, RELEVANCE, TAGS
from raypipe.notes import storage
from raypipe.settings.arms import PRETRAINING, masking_of, pseudo_of, with_matched
from raypipe.settings.config import Config, Masking

ALL_ARMS = "*"  # the entry of what any arm changes for every other; no arm can have this name


def masks(config: Config) -> dict[str, Any]:
    """Masking of every arm."""
    return {arm: _masks(masking, config) for arm, masking in masking_of(config).items()} | {
        ALL_ARMS: _shared_by_masks(config)
    }


def pseudo_labels(config: Config) -> dict[str, Any]:
    """Of every arm, which of the scorer's answers it learns from."""
    return {arm: {"pseudo_labels": of_arm.model_dump(mode="json")} for arm, of_arm in pseudo_of(config).items()}


def one(config: Config, name: str) -> dict[str, Any]:
    """An arm, and the masking of those whose ratio it copies."""
    arm = config.arms[name]
    if not arm.reconstructs:
        return {name: {"start": arm.start}}
    own = arm.model_dump(mode="json", exclude={"train"})  # recorded as the section `train`, for all arms alike
    if arm.masking is None:
        return {name: own}
    matched = {other: config.arms[other].masking for other in with_matched(config.arms, name)}
    masks = {other: _masks(masking, config) for other, masking in matched.items() if masking is not None}
    return masks | {name: own | masks[name], ALL_ARMS: _shared_by_masks(config)}


def _shared_by_masks(config: Config) -> dict[str, Any]:
    """What bears on the masks of every arm, whichever arm brings it along.

    A note is asked tasks, and has a plan for each, if some arm needs its relevance; it is left out if it holds a mark
    that some arm writes, or lacks the tags that some arm needs; words that match an arm's PHI patterns are not counted.
    """
    arms = masking_of(config)
    marks = {mark for masking in arms.values() if not isinstance(masking.sentinels, str) for mark in masking.sentinels}
    patterns = {pattern for masking in arms.values() for pattern in masking.phi_patterns}
    return {"needs": sorted(needs(arms) & {RELEVANCE, TAGS}), "sentinels": sorted(marks), "phi": sorted(patterns)}


def _masks(masking: Masking, config: Config) -> dict[str, Any]:
    """Masking of one arm, with the files that it reads beside the notes."""
    needed, counts = needs({"": masking}), config.statistics.general_counts
    files = [masking.mslm.lexicon if LEXICON in needed else None, counts if GENERAL in needed else None]
    listed = {path: storage.listing(path, "arms") for path in files if path and path != PRETRAINING}
    return {"masking": masking.model_dump(mode="json"), **({"files": listed} if listed else {})}
