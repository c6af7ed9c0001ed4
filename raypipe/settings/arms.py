"""Which arms of a config are masked, which learn the scorer's answers, and which copy whose masking ratio."""

from __future__ import annotations

from collections.abc import Mapping

from raypipe.settings.config import Arm, Config, Masking, PseudoLabels

PRETRAINING = "pretraining"  # as statistics.general_counts: count the words of that corpus


def masking_of(settings: Config) -> dict[str, Masking]:
    """The masking of the arms that are masked by this run's relevance; an arm with its own attribution is a variant."""
    arms = {name: arm for name, arm in settings.arms.items() if arm.attribution is None}
    return {name: arm.masking for name, arm in arms.items() if arm.masking is not None}


def pseudo_of(settings: Config) -> dict[str, PseudoLabels]:
    """The arms that learn the scorer's own answers."""
    return {name: arm.pseudo_labels for name, arm in settings.arms.items() if arm.pseudo_labels is not None}


def with_matched(arms: Mapping[str, Arm], name: str) -> list[str]:
    """The arm, and the arms whose ratio it copies, in the order of `arms`."""
    chain = {name}
    while True:
        more = {m.match_ratio_to for arm in chain if (m := arms[arm].masking) and m.match_ratio_to}
        if more <= chain:
            return [arm for arm in arms if arm in chain]
        chain |= more
