"""All that a step's output depends on: config sections, what of the arms bears on it, and the input files.

Recorded with the output, so that a step is used again exactly when it would come out the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.masking.requirements import needs
from raypipe.masking.strategy import GENERAL, LEXICON, RELEVANCE, TAGS
from raypipe.models.prompts import MASK
from raypipe.notes import storage
from raypipe.runs.steps import named
from raypipe.settings import configfile
from raypipe.settings.arms import PRETRAINING, masking_of, pseudo_of, with_matched
from raypipe.settings.config import Arm, Config, Masking

# Keys of `data` on which no step's rows depend, and those that choose labels: what is made of notes alone is the same.
NO_ROWS, CHOOSE_LABELS = {"max_error_rate"}, {"max_labelled", "label_seed"}
ALL_ARMS = "*"  # the entry of what any arm changes for every other; no arm can have this name


def settings_of(name: str, config: Config, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings to record with the output of the step `name`. `inputs`: listings of the input files, by name."""
    kind = named(name).kind
    sections = _sections(name, config)
    data = _keys_of("data", config, NO_ROWS if "data" in sections else NO_ROWS | CHOOSE_LABELS)
    attribution = {"attribution"} & sections
    if attribution and config.attribution.keep == "all":  # relevance at all layers does not depend on the layer read
        attribution = _keys_of("attribution", config, {"layer"})
    marked = {"train.lora"} if "prompt" in sections and MASK in config.prompt.question else set()  # chooses the mark
    sections = sections - {"data", "notes", "attribution"} | data | attribution | marked
    sections, scorer = _of_scorer(config, sections)
    unread = {"model", "statistics"} - sections  # files of models that this step does not read
    files = {listed: listing for listed, listing in inputs.items() if listed not in unread}
    arms = _of_arms(name, config)
    determinants = configfile.determinants(config, sorted(sections), files) | scorer | ({"arms": arms} if arms else {})
    return determinants | (kind.beside(config) if kind.beside else {})


def _sections(name: str, config: Config) -> set[str]:
    """Sections that the step reads, and those that the steps before it read."""
    step = named(name)
    before = step.filled(step.kind.made_from(config, config.arms.get(step.arm, Arm())))
    return step.kind.sections(config).union(*(_sections(other, config) for other in before))


def _of_scorer(config: Config, sections: set[str]) -> tuple[set[str], dict[str, Any]]:
    """The sections without `scorer`, and what the scorer was trained with.

    It goes by the name `finetune`, as in steps that know no scorer of its own; beside another fine-tuning, by its own.
    """
    if "scorer" not in sections:
        return sections, {}
    training, rest = config.scorer_training.model_dump(mode="json"), sections - {"scorer"}
    if "finetune" not in rest:
        return rest, {"finetune": training}
    return rest, {} if config.scorer_is_a_student else {"scorer.training": training}


def _keys_of(section: str, config: Config, but: set[str]) -> set[str]:
    return {f"{section}.{key}" for key in type(getattr(config, section)).model_fields if key not in but}


def _of_arms(name: str, config: Config) -> dict[str, Any]:
    """Settings of arms that the step's output depends on, by arm; ALL_ARMS holds what any arm changes for every other.

    A step of one arm depends on that arm and on those whose masking ratio it copies.
    """
    if name in ("mask", "train/rows"):
        masks = {arm: _masks(masking, config) for arm, masking in masking_of(config).items()}
        return masks | {ALL_ARMS: _shared_by_masks(config)}
    if name == "pseudo":
        return {arm: {"pseudo_labels": of_arm.model_dump(mode="json")} for arm, of_arm in pseudo_of(config).items()}
    own_name = named(name).arm
    if own_name not in config.arms:
        return {}
    arm = config.arms[own_name]
    if not arm.reconstructs:
        return {own_name: {"start": arm.start}}
    own = arm.model_dump(mode="json")
    if arm.masking is None:
        return {own_name: own}
    matched = {other: config.arms[other].masking for other in with_matched(config.arms, own_name)}
    masks = {other: _masks(masking, config) for other, masking in matched.items() if masking is not None}
    return masks | {own_name: own | masks[own_name], ALL_ARMS: _shared_by_masks(config)}


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
