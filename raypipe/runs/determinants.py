"""All that a step's output depends on: config sections, what of the arms bears on it, and the input files.

Recorded with the output, so that a step is used again exactly when it would come out the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from raypipe.models.prompts import MASK
from raypipe.runs import of_arms
from raypipe.runs.inputs import File, as_recorded
from raypipe.runs.names import CHOOSE_LABELS
from raypipe.runs.steps import named
from raypipe.settings import configfile
from raypipe.settings.config import Arm, Config

NO_ROWS = {"max_error_rate"}  # keys of `data` on which no step's rows depend


def settings_of(
    name: str, config: Config, inputs: Mapping[str, Any], copied: Mapping[File, File] = MappingProxyType({})
) -> dict[str, Any]:
    """The settings to record with the output of the step `name`.

    `inputs`: listings of the input files, by name. `copied`: of which of them the time alone has changed (inputs.py).
    """
    kind = named(name).kind
    config = config.model_copy(update={"train": config.training_of(named(name).arm)})
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
    settings: dict[str, Any] = as_recorded(determinants | (kind.beside(config) if kind.beside else {}), copied)
    return settings


def _sections(name: str, config: Config) -> set[str]:
    """Sections that the step reads, and those that the steps before it read."""
    step = named(name)
    before = step.filled(step.kind.made_from(config, config.arms.get(step.arm, Arm())))
    return step.kind.sections(config).union(*(_sections(other, config) for other in before))


def _of_scorer(config: Config, sections: set[str]) -> tuple[set[str], dict[str, Any]]:
    """The sections without `scorer`, and what the scorer was trained with.

    Recorded as `finetune`, the key of runs that are older than the section `scorer`; as `scorer.training` if the step
    also has another fine-tuning. An untuned scorer is the model; where that does not show, it is said.
    """
    if "scorer" not in sections:
        return sections, {}
    rest = sections - {"scorer"}
    if config.scorer.untuned:
        return rest | {"model"}, {"scorer.untuned": True} if "finetune" in rest else {}
    training = config.scorer_training.model_dump(mode="json")
    if "finetune" not in rest:
        return rest, {"finetune": training}
    return rest, {} if config.scorer_is_a_student else {"scorer.training": training}


def _keys_of(section: str, config: Config, but: set[str]) -> set[str]:
    return {f"{section}.{key}" for key in type(getattr(config, section)).model_fields if key not in but}


def _of_arms(name: str, config: Config) -> dict[str, Any]:
    """Settings of arms that the step's output depends on, by arm; a step for all arms adds those of the steps before.

    A step of one arm depends on that arm and on those whose masking ratio it copies, and on no other.
    """
    step = named(name)
    if step.student:
        return of_arms.one(config, step.arm) if step.arm in config.arms else {}
    arms = step.kind.arms(config) if step.kind.arms else {}
    for other in step.kind.made_from(config, Arm()):
        for arm, settings in _of_arms(other, config).items():
            arms[arm] = settings | arms.get(arm, {})
    return arms
