"""The config against what other rooms know of its names: strategies, methods, arms, placeholders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.guard.quiet import of_disk
from raypipe.notes.identifiers import PATTERNS
from raypipe.runs.names import RESERVED
from raypipe.settings.arms import PRETRAINING
from raypipe.settings.config import Attribution, Config, Data, Masking, Training
from raypipe.settings.yamlfile import did_you_mean


def problems(config: Config) -> Iterator[Problem]:
    """What other modules know about the names in the config."""
    from raypipe.masking import requirements

    arms = {name: arm.masking for name, arm in config.arms.items() if arm.masking is not None}
    of_masking = requirements.problems(arms)
    yield from of_masking or _sources(config, arms)
    encoder = config.statistics.encoder
    if encoder is not None and not any(Path(encoder).glob("*.safetensors")):
        yield Problem("statistics.encoder", "no *.safetensors in the folder; other formats are refused")
    for name in sorted(RESERVED & set(config.arms)):
        yield Problem(f"arms.{name}", "is the name of a folder or line of every run; choose another")
    own = {name: arm.attribution for name, arm in config.arms.items() if arm.attribution is not None}
    for name, masking in arms.items():
        if masking.match_ratio_to in own:
            yield Problem(f"arms.{name}.masking.match_ratio_to", f"{masking.match_ratio_to} has relevance of its own")
    yield from _attributions(config)
    for name, arm in config.arms.items():
        if arm.train is not None and (arm.train.lora is None) != (config.train.lora is None):
            what = "adapters or all weights: that decides what stands for hidden words, so it must be as in train.lora"
            yield Problem(f"arms.{name}.train.lora", what)
    for where, training in _trainings_on_notes(config):
        if training.eval_every is not None:
            yield Problem(f"{where}.eval_every", "is for trainings on labels: there are no dev rows here; remove it")
    if config.data.pretraining_share and (config.data.pretraining is not None or config.data.source == "synthetic"):
        yield Problem("data.pretraining_share", "is a share of data.notes, but pretraining has a corpus of its own")
    yield from _placeholders(config.data)
    if not config.arms:
        yield Problem("arms", "is empty: there is nothing to compare")
    for name in sorted(set(config.probe.arms or ()) - set(config.arms)):
        yield Problem("probe.arms", f"no such arm: {name}")
    if config.evaluation.embeddings and config.probe.head != "logistic":
        yield Problem("evaluation.embeddings", f"is a logistic regression, but probe.head is {config.probe.head}")
    if config.tracking.dev_scores and config.resources.sharding != "ddp":
        yield Problem("tracking.dev_scores", "needs a whole model on each worker: set resources.sharding to ddp")
    if config.evaluation.conformal is not None and config.evaluation.split == "dev":
        yield Problem("evaluation.conformal", "is calibrated on dev, so evaluation.split must be another split")


def all_attributions(config: Config) -> list[tuple[str, Attribution]]:
    """The run's attribution and those of single arms, each with its place."""
    own = [(f"arms.{name}.attribution", arm.attribution) for name, arm in config.arms.items()]
    return [("attribution", config.attribution), *((where, one) for where, one in own if one is not None)]


def all_trainings(config: Config) -> list[tuple[str, Training]]:
    """Every training of the config, each with its place."""
    others = config.comparison.finetunings
    on_labels = {"finetune": config.finetune} | {f"comparison.finetunings.{name}": t for name, t in others.items()}
    if config.scorer.training is not None:
        on_labels["scorer.training"] = config.scorer.training
    return [*_trainings_on_notes(config), *on_labels.items()]


def _trainings_on_notes(config: Config) -> list[tuple[str, Training]]:
    """Those that read no label."""
    own = [(f"arms.{name}.train", arm.train) for name, arm in config.arms.items()]
    pretrain = [("pretrain.training", config.pretrain.training)] if config.pretrain else []
    return [("train", config.train), *pretrain, *((where, one) for where, one in own if one is not None)]


def _attributions(config: Config) -> Iterator[Problem]:
    """Methods that are not known, and keys that they do not read."""
    from raypipe.attribution.layers import in_vain
    from raypipe.attribution.registry import method_of

    also: frozenset[str] = frozenset()  # what the methods compared read of the section `attribution`
    for i, name in enumerate(config.faithfulness.methods):
        where, compared = f"faithfulness.methods.{i}", config.attribution.named(name)
        try:
            read = method_of(compared).settings
        except InputError as error:
            yield from (Problem(where, problem.what) for problem in error.problems)
            continue
        if "methods" in config.faithfulness.model_fields_set:
            also |= read - {"reduction"}
        if compared.reduction != "auto" and "reduction" not in read:
            yield Problem(where, f"{compared.method} does not read a reduction; write {compared.method} alone")
    for where, attribution in all_attributions(config):
        elsewhere = also if where == "attribution" else frozenset()
        try:
            for key in in_vain(attribution):
                if key not in elsewhere:
                    yield Problem(f"{where}.{key}", f"not read by {attribution.method}; remove it")
        except InputError as error:
            yield from (Problem(f"{where}.method", problem.what) for problem in error.problems)


def _placeholders(data: Data) -> Iterator[Problem]:
    """Can each kind of `data.placeholders` be found in a note, and is each of `data.identifiers` replaced?"""
    kinds = {*PATTERNS, *data.identifiers}
    for kind in sorted(data.placeholders.keys() - kinds) if data.columns.spans is None else ():
        kinds_there = f"there are {', '.join(sorted(kinds))}, and types of spans if data.columns.spans is set"
        yield Problem("data.placeholders", f"no such kind: {kind}; {kinds_there}{did_you_mean(kind, kinds)}")
    for kind in sorted(data.identifiers.keys() - data.placeholders.keys()):
        yield Problem(f"data.identifiers.{kind}", "has no placeholder: say in data.placeholders what replaces it")
    if data.placeholders and data.source == "synthetic":
        yield Problem("data.placeholders", "the generated notes hold no identifiers: remove it")


def _sources(config: Config, arms: Mapping[str, Masking]) -> Iterator[Problem]:
    """What the strategies read beside the notes: is it there?"""
    from raypipe.masking.corpus_needs import corpus_needs
    from raypipe.masking.strategies import STRATEGIES
    from raypipe.masking.strategy import GENERAL, TAGS
    from raypipe.masking.terms import read_terms

    def which(need: str) -> str:
        return ", ".join(n for n, masking in arms.items() if need in STRATEGIES[masking.strategy].needs(masking))

    if which(TAGS) and config.data.columns.tags is None:
        yield Problem("data.columns.tags", f"is not set, but the terms of {which(TAGS)} are its tags")
    if which(GENERAL):
        yield from _general(config, which(GENERAL))
    for path in corpus_needs(arms).lexicons:
        if Path(path).is_dir():
            yield Problem("masking.mslm.lexicon", f"{path} is a folder")
            continue
        try:
            if not read_terms(path):
                yield Problem("masking.mslm.lexicon", f"{path} holds no term")
        except (OSError, UnicodeDecodeError) as error:
            where, what = "masking.mslm.lexicon", f"{path} cannot be read ({type(error).__name__})"
            yield from (of_disk(error, path) or InputError([Problem(where, what)])).problems
    deletes = (config.attribution.method, config.attribution.sign) == ("occlusion", "positive")
    for name, masking in arms.items():
        if masking.strategy == "selective" and masking.selective.source == "relevance" and not deletes:
            what = "relevance must say what deleting a word costs: set attribution.method to occlusion and "
            where = f"arms.{name}.masking.selective.source"
            yield Problem(where, f"{what}attribution.sign to positive, or take tagger")


def _general(config: Config, arms: str) -> Iterator[Problem]:
    """Word counts of general language, for the arms that compare the corpus with it."""
    from raypipe.masking.general import read_counts

    where, counts = "statistics.general_counts", config.statistics.general_counts
    if counts is None:
        yield Problem(where, f"is not set, but {arms} need a table of general language (word, count), or `pretraining`")
    elif counts == PRETRAINING:
        if config.data.source == "files" and config.data.pretraining is None:
            yield Problem(where, "is pretraining, but data.pretraining is not set")
    else:
        try:
            read_counts(counts)
        except InputError as error:
            yield Problem(where, str(error))
