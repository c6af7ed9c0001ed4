"""The tokenizer and the architecture of a plan: the model's own, or the nearest thing while they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raypipe.errors import InputError, Problem
from raypipe.models import loading, shape
from raypipe.models.families import FAMILIES
from raypipe.models.prompts import PromptEncoder, with_mark
from raypipe.notes.tasks import Task
from raypipe.runs.planning.sample import Sample
from raypipe.runs.run import Run
from raypipe.settings import config

# Characters of a token where there is no tokenizer: about what vocabularies of 100,000 and more make of plain prose.
CHARACTERS = 4
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Model:
    """What the steps run, without numbers."""

    name: str
    architecture: Any  # transformers' config
    tokenizer: Any
    tokenizer_source: str
    tokenizer_section: config.Model | None  # where stages load it from; None: from nowhere
    tokenizer_bytes: int
    stored: torch.dtype  # of the weights on disk
    weights: config.Model | config.Pretrain | None  # where weights come from; None: there are none yet

    @property
    def family(self) -> str:
        """A key of FAMILIES."""
        return str(self.architecture.model_type)

    def on_meta(self) -> Any:
        """A fresh model without numbers."""
        return shape.of_config(self.architecture)

    def encoder(self, settings: config.Config, tasks: list[Task]) -> PromptEncoder:
        """Prompts of a run."""
        rows_train = settings.train.lora is None
        prompt = with_mark(settings.prompt, self.tokenizer, FAMILIES[self.family].sentinels, rows_train)
        return PromptEncoder(self.tokenizer, prompt, tasks, settings.model.chat)


def model_of(run: Run, model_config: Path | None, sample: Sample, scratch: Path) -> Model:
    """The model that a run starts from. `model_config`: a config.json, or its folder, in place of the run's model."""
    if model_config is not None:
        return _of_config(model_config, [note["text"] for note in sample.to_learn_from.notes])
    section = run.settings.model
    if not run.pretrains:
        architecture = loading.check(section)
        tokenizer = loading.load_tokenizer(section)
        stored = loading.stored_dtype(section)
        n_bytes = _size(Path(section.path)) if Path(section.path).is_dir() else _saved(tokenizer, scratch)
        return Model(section.path, architecture, tokenizer, "the model's tokenizer", section, n_bytes, stored, section)
    pretrain = run.settings.pretrain
    if pretrain is None:
        raise InputError([Problem("model.path", "is pretrain, but there is no section pretrain")])
    own, source = run.tokenizer, "the run's own tokenizer"
    if not run.is_done("pretrain/rows"):
        own = section.model_copy(update={"path": str(scratch / "tokenizer")})
        loading.train_tokenizer((note["text"] for note in sample.pretraining.notes), pretrain, Path(own.path))
        source = f"a tokenizer trained for the plan, on {len(sample.pretraining.notes):,} notes"
    tokenizer = loading.load_tokenizer(own)
    architecture = shape.on_meta(lambda: loading.from_scratch(pretrain, tokenizer)).config
    name = f"{pretrain.family}, from scratch"
    return Model(name, architecture, tokenizer, source, own, _size(Path(own.path)), torch.float32, pretrain)


def _of_config(path: Path, texts: Sequence[str]) -> Model:
    architecture = shape.read_config(path)
    stored = getattr(architecture, "dtype", None) or torch.float32
    stored = stored if isinstance(stored, torch.dtype) else getattr(torch, str(stored))
    if path.is_dir() and (path / "tokenizer.json").exists():
        section = config.Model(path=str(path))
        tokenizer = loading.load_tokenizer(section)
        source = "the tokenizer beside the config"
        return Model(str(path), architecture, tokenizer, source, section, _size(path), stored, None)
    source = f"an estimate: {CHARACTERS} characters a token, because no tokenizer is there"
    return Model(str(path), architecture, _by_characters(architecture.model_type, texts), source, None, 0, stored, None)


def _by_characters(family: str, texts: Sequence[str]) -> Any:
    """A tokenizer that cuts text every few characters. It tells the pieces of `texts` apart, so that rows compress."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [loading.BEGIN, loading.END, loading.PAD, ""]
    cut = Tokenizer(models.WordLevel(unk_token=""))
    cut.pre_tokenizer = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{CHARACTERS}}}"), "isolated")
    cut.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=cut, bos_token=loading.BEGIN, eos_token=loading.END, pad_token=loading.PAD
    )
    fast.add_special_tokens({"additional_special_tokens": list(FAMILIES[family].sentinels)})
    return fast


def _saved(tokenizer: Any, scratch: Path) -> int:
    tokenizer.save_pretrained(scratch / "saved")
    return _size(scratch / "saved")


def _size(folder: Path) -> int:
    """Bytes of a tokenizer's files."""
    return sum((folder / name).stat().st_size for name in TOKENIZER_FILES if (folder / name).exists())
