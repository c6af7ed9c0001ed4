"""Where each artefact of a run lands, what it was made from, and whether it is still true.

    runs/<name>/
      config.yaml                       what was asked last
      corpus/                           tasks, labels and labelled notes in use (and the generated notes of the demo)
      pretrain/                         tokenizer/ rows/ model/ metrics.jsonl
      finetune/rows/ finetune/scorer/   model/ metrics.jsonl
      statistics/                       words and runs of words of the corpus, where an arm asks for them
      faithfulness/                     report.html metrics.json table.csv table.txt
      attribute/ mask/                  data/*.parquet: relevance; relevance and masking plans, one row per note
      answer/ pseudo/                   data/*.parquet: the scorer's own answers; the sure ones as an arm's rows
      train/rows/ train/<arm>/          model/ metrics.jsonl
      finetune/<arm>/ evaluate/<arm>/   model/ metrics.jsonl; data/*.parquet; <arm>@1, @2: its further repeats
      variants/<arm>/                   a run of its own for an arm with another attribution
      cells/<seed>-<labels>/            a run of its own for each seed and label budget of a comparison
      calibrate/<arm>/                  data/*.parquet: predictions on dev, for evaluation.conformal
      states/<student>/                 data/*.parquet: hidden states of all layers, one row per labelled note
      probe/<student>/                  data/*.parquet: predictions from each layer; probe/report.html metrics.json
      report/                           report.html metrics.json
    runs/.cache/statistics/             counts of a corpus, by fingerprint: shared by all runs in this folder

Every step folder holds `settings.json` (all that its output depends on, written first) and `manifest.json` (facts about
the output and the packages that made it, written last). A folder without manifest is unfinished: the same command goes
on there. A folder with other settings is refused: nothing is silently computed from two configurations. What all arms
share is made again if arms were added, as it will be the same for the others; their students stay.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypipe.settings import configfile
from raypipe.settings.arms import behind
from raypipe.settings.config import Config
from raypipe.errors import InputError, Problem
from raypipe.hashing import fingerprint

PACKAGES = ("raypipe", "ray", "torch", "transformers", "peft", "captum", "pyarrow", "scikit-learn", "numpy")

_STATES = ("prompt", "model", "evaluation.split", "probe.layers")
_HEAD = ("probe.head", "probe.c", "probe.folds", "seed")
_PROBE = ("probe.pooling", "probe.control", *_HEAD)
# Step -> the config sections that determine its output, and the steps it is made from. {arm} stands for any arm.
# What a step owes to the settings of arms is in arms.behind.
MADE_FROM: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "corpus": (("data",), ()),  # `notes`: the data less what chooses labels
    "pretrain": (("pretrain", "notes"), ()),
    "finetune/rows": (("prompt", "model"), ("corpus", "pretrain")),
    "finetune/scorer": (("finetune",), ("finetune/rows",)),
    "attribute": (("attribution", "prompt", "seed"), ("corpus", "finetune/scorer")),
    "faithfulness": (("faithfulness", "attribution", "prompt", "seed"), ("corpus", "finetune/scorer")),
    "statistics": (("statistics", "model"), ("corpus", "pretrain")),  # and what the arms ask for: experiment.statistics
    "mask": (("attribution.layer",), ("attribute", "statistics")),
    "train/rows": (("train.lora",), ("mask",)),  # with LoRA, sentinels are plain text
    "answer": (("prompt", "evaluation.batch_tokens"), ("corpus", "finetune/scorer")),
    "pseudo": ((), ("answer",)),
    "train/{arm}": (("train",), ("train/rows",)),  # or ("pseudo",)
    "finetune/{arm}": (("finetune",), ("finetune/rows", "train/{arm}")),
    "evaluate/scorer": (("evaluation.split", "evaluation.mode"), ("finetune/scorer",)),
    "evaluate/{arm}": (("evaluation.split", "evaluation.mode"), ("finetune/{arm}",)),
    "calibrate/scorer": (("evaluation.mode",), ("finetune/scorer",)),
    "calibrate/{arm}": (("evaluation.mode",), ("finetune/{arm}",)),
    "states/backbone": (_STATES, ("corpus", "pretrain")),
    "states/train/{arm}": (_STATES, ("train/{arm}",)),
    "states/finetune/scorer": (_STATES, ("finetune/scorer",)),
    "states/finetune/{arm}": (_STATES, ("finetune/{arm}",)),
    "probe/backbone": (_PROBE, ("states/backbone",)),
    "probe/train/{arm}": (_PROBE, ("states/train/{arm}",)),
    "probe/finetune/scorer": (_PROBE, ("states/finetune/scorer",)),
    "probe/finetune/{arm}": (_PROBE, ("states/finetune/{arm}",)),
}


# Keys of `data` on which no step's rows depend, and those that choose labels: what is made of notes alone is the same.
NO_ROWS, CHOOSE_LABELS = {"max_error_rate"}, {"max_labelled", "label_seed"}


def settings_of(step: str, config: Config, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """All that a step's output depends on: its own sections, those of the steps before it, and the input files."""
    sections = _sections(step, config)
    data = _keys_of("data", config, NO_ROWS if "data" in sections else NO_ROWS | CHOOSE_LABELS)
    attribution = {"attribution"} & sections
    if attribution and config.attribution.keep == "all":
        attribution = _keys_of("attribution", config, {"layer"})
    sections = sections - {"data", "notes", "attribution"} | data | attribution
    models = {"model", "statistics"} - sections  # files of models that this step does not read
    files = {name: listing for name, listing in inputs.items() if name not in models}
    arms = behind(step, _student(step), config)
    return configfile.determinants(config, sorted(sections), files) | ({"arms": arms} if arms else {})


def _keys_of(section: str, config: Config, but: set[str]) -> set[str]:
    return {f"{section}.{key}" for key in type(getattr(config, section)).model_fields if key not in but}


def _sections(step: str, config: Config) -> set[str]:
    student = _student(step)
    own, before = MADE_FROM[step if not student else f"{step[: step.rindex('/')]}/{{arm}}"]
    arm = config.arms.get(student)
    if step.startswith(("evaluate/", "calibrate/")) and config.evaluation.mode == "head":
        own = (*own, *_HEAD)
    if "train/{arm}" in before and arm is not None and not arm.reconstructs:
        before = ("finetune/rows",)  # labels alone: no masks
    if "train/rows" in before and arm is not None and arm.pseudo_labels is not None:
        before = ("pseudo",)
    return set(own).union(*(_sections(name.format(arm=student), config) for name in before))


def _student(step: str) -> str:
    """The arm whose student a step makes or measures; empty for a step of no arm."""
    return "" if step in MADE_FROM else step.rpartition("/")[2].partition("@")[0]


@dataclass
class Step:
    """One step's folder. `settings` decides whether an earlier output may be used."""

    folder: Path
    settings: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded = self.folder / "settings.json"
        if not recorded.exists() or set(self.folder.iterdir()) == {recorded}:  # nothing was made here yet
            write_json(recorded, self.settings)
        elif added := self.lacks(self.folder, self.settings):
            what = f"was made without arms {', '.join(added)}, added since; the command that made it makes it again"
            raise InputError([Problem(str(self.folder), what)])
        elif changed := configfile.changed_keys(read_settings(self.folder), self.settings):
            what = f"made with other settings ({', '.join(changed)}); change `name`, or delete the folder to redo it"
            raise InputError([Problem(str(self.folder), what)])

    @staticmethod
    def lacks(folder: Path, settings: Mapping[str, Any]) -> list[str]:
        """Arms that were added since the folder's output was complete, if all else is as it was."""
        if not _is_complete(folder):
            return []
        recorded = {"arms": {}, **read_settings(folder)}
        arms: dict[str, Any] = settings.get("arms", {})
        added = arms.keys() - recorded["arms"].keys()
        others = {**settings, "arms": {name: arm for name, arm in arms.items() if name not in added}}
        return sorted(added) if not configfile.changed_keys(recorded, others) else []

    @classmethod
    def finished(cls, folder: Path, settings: dict[str, Any]) -> Step | None:
        """The step in `folder` if it is complete and was made with exactly these settings; writes nothing."""
        if not _is_complete(folder) or configfile.changed_keys(read_settings(folder), settings):
            return None
        return cls(folder, settings)

    @property
    def data(self) -> Path:
        """Where the step's rows lie."""
        return self.folder / "data"

    @property
    def done(self) -> bool:
        """Is the output complete?"""
        return (self.folder / "manifest.json").exists()

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the finished output."""
        return json.loads((self.folder / "manifest.json").read_text())

    def finish(self, **facts: Any) -> None:
        """Declare the output complete; written last, and in one move."""
        write_json(self.folder / "settings.json", self.settings)  # another config may have looked into it while empty
        told = {"fingerprint": fingerprint(self.settings), "seconds": time.perf_counter() - self.began}
        write_json(self.folder / "manifest.json", told | facts | {"versions": versions()})


def _is_complete(folder: Path) -> bool:
    return (folder / "manifest.json").exists() and (folder / "settings.json").exists()


def clear(folder: Path) -> None:
    """Delete a step's folder: moved aside first, as half of it would look whole; and what an earlier call left."""
    aside = folder.with_name(f"{folder.name}~")  # no arm can have this name
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)


def read_settings(folder: Path) -> dict[str, Any]:
    """What the output in a step's folder depends on."""
    return json.loads((folder / "settings.json").read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
    fresh.replace(path)


def versions() -> dict[str, str]:
    """What is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
