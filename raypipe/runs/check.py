"""Everything that can be wrong with a run, before any actor starts, and all at once.

report = check(config)                  # raises InputError with every problem
report, problems = examine(config)      # both, with what may spoil a run without stopping it
print(report)                           # one line per task, then warnings
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import Code, InputError, Problem
from raypipe.guard import limits
from raypipe.guard.tables import align
from raypipe.notes import labels as labels_of
from raypipe.notes import storage
from raypipe.notes.corpus import Corpus
from raypipe.notes.deciding import is_annotated, read_deciding
from raypipe.notes.files import iter_notes
from raypipe.notes.identifiers import PATTERNS
from raypipe.notes.reading import tables, units
from raypipe.notes.split import SPLITS
from raypipe.notes.tasks import Task, lines_of_tasks, load_tasks
from raypipe.runs.folded import doubts_of_tasks, folded
from raypipe.runs.names import RESERVED
from raypipe.runs.survey import survey
from raypipe.settings.arms import PRETRAINING
from raypipe.settings.config import Attribution, Config, Data, Masking, Model
from raypipe.settings.yamlfile import did_you_mean
from raypipe.training import trackers

if TYPE_CHECKING:
    from raypipe.models.prompts import PromptEncoder

Result = TypeVar("Result")
ONE_SIDED = 0.95  # share of the largest class from which on a task is a doubt
SYSTEM_SHOWN = 80  # characters of a template's own system text
SAMPLE = 8  # tables of reading.TEXT_ROWS notes whose text is looked at


@dataclass(frozen=True)
class CheckReport:
    """What a run will work on. Prints as a table of tasks."""

    tasks: list[Task] = field(default_factory=list)
    labels: pa.Table = field(default_factory=rows.LABELS.empty_table)  # in use: within the limits of the data section
    n_notes: int = 0
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # what else is worth knowing of the notes
    is_generated: bool = False
    names_labels: bool = True  # False: their counts alone, in the order of the options

    def __str__(self) -> str:
        if self.is_generated:
            return "the notes are generated, and checked, when the run starts"
        if not self.tasks or not self.labels.num_rows:  # what is wrong with them is said elsewhere
            return "\n".join(self._below)
        counts = labels_of.counts_of(self.labels)
        table = [["task", "kind", *SPLITS, "labels (train)"]]
        for task in self.tasks:
            of_task = counts.get(task.id, {})
            n = [str(sum(of.get(split, 0) for of in of_task.values())) for split in SPLITS]
            of_options = [(option, of_task.get(option, {}).get("train", 0)) for option in task.options[:6]]
            shown = ", ".join(f"{o}: {n}" if self.names_labels else str(n) for o, n in of_options)
            more = f", +{len(task.options) - 6}" if len(task.options) > 6 else ""
            table.append([task.id, task.kind, *n, f"{shown}{more}{'  !' if any(_doubts(task, of_task)) else ''}"])
        lines = [align(table)]
        lines.append(f"{len(self.tasks)} tasks, {self.labels.num_rows:,} labels, {self.n_notes:,} notes")
        return "\n".join([*lines, *self._below])

    @property
    def _below(self) -> list[str]:
        return [*self.lines, *(f"warning: {warning}" for warning in self.doubts)]

    @property
    def doubts(self) -> list[str]:
        """All warnings, those of tasks included."""
        counts = labels_of.counts_of(self.labels)
        doubted = [(task.id, _doubts(task, counts.get(task.id, {}))) for task in self.tasks if counts]
        of_tasks = ((task_id, doubt) for task_id, doubts in doubted for doubt in doubts)
        return [*doubts_of_tasks(of_tasks), *self.warnings]


def check(config: Config, corpus: Corpus | None = None, with_model: bool = True) -> CheckReport:
    """Check config, tasks, labels, notes and model against each other.

    `corpus`: tables that passed this check before; only what other settings may have changed is checked again.
    `with_model`: False where the model need not be there yet. Raises
    `InputError` with every problem. Does not import ray; needs torch and transformers for the model only.
    """
    report, problems = _checked(config, corpus, with_model)
    if problems:
        raise InputError(problems)
    return report


def examine(config: Config) -> tuple[CheckReport, list[Problem]]:
    """The report, and every problem. Looks closer than `check`: at samples of the notes, and at their tokens."""
    report, problems = _checked(config, None)
    problems += trackers.problems(config.tracking)
    if report.is_generated or not report.n_notes:
        return report, problems
    encoder = None
    has_no_model = any(problem.where == "model.path" for problem in problems)
    if (model := _tokenizer_of(config)) is not None and not has_no_model:
        with suppress(InputError):  # is among the problems
            encoder = encoder_of(config.model_copy(update={"model": model}), report.tasks)
    try:
        closer = survey(config, report.tasks, report.labels, encoder)
    except InputError as error:
        return report, folded([*problems, *error.problems])
    of_template = _system_texts(config, encoder) if encoder is not None else ()
    return replace(report, lines=closer.lines, warnings=[*report.warnings, *closer.warnings, *of_template]), problems


def _system_texts(config: Config, encoder: PromptEncoder) -> Iterator[str]:
    """Where the model would read a system text that nobody wrote: not in the config, and often not its language."""
    from raypipe.models.prompts import added_system

    if config.model.chat != "auto" or not (added := added_system(encoder.tokenizer)):
        return
    arms = {name: arm.masking.instruction for name, arm in config.arms.items() if arm.masking is not None}
    where = [f"arms.{name}.masking.instruction" for name, instruction in arms.items() if not instruction]
    where = [*where, *([] if config.prompt.instruction else ["prompt.instruction"])]
    if where:
        shown = added if len(added) <= SYSTEM_SHOWN else f"{added[:SYSTEM_SHOWN]}..."
        yield f"without {', '.join(where)} the chat template adds its own {shown!r}: `model.chat: bare` leaves it out"


def _tokenizer_of(config: Config) -> Model | None:
    """Where the tokenizer is; None if the run's own `pretrain` has not made it yet."""
    if config.model.path != "pretrain":
        return config.model
    pretrain = Path(config.runs) / config.name / "pretrain"
    is_made = (pretrain / "rows" / "manifest.json").exists()
    return config.model.model_copy(update={"path": str(pretrain / "tokenizer")}) if is_made else None


def _checked(config: Config, corpus: Corpus | None, with_model: bool = True) -> tuple[CheckReport, list[Problem]]:
    problems: list[Problem] = []
    tried = _Collector(problems)
    tried(lambda: problems.extend(of_settings(config)))
    if corpus is not None:
        report = CheckReport(corpus.tasks, corpus.labels, corpus.facts["notes"])
    elif config.data.source == "synthetic":  # the tables are made, and checked, when the run starts
        report = CheckReport(is_generated=True)
    else:
        report = _of_data(config, problems, tried)
    if report.tasks and (report.labels.num_rows or not problems):
        problems += _of_splits(config, report.labels)
    if with_model:
        tried(lambda: problems.extend(_model(config, report.tasks)))
    return report, folded(_in_tasks_file(problem, config.data) for problem in problems)


def _in_tasks_file(problem: Problem, data: Data) -> Problem:
    """A problem of a task at its line of the tasks file."""
    prefix, _, task = problem.where.partition("data.tasks: task ")
    lines = lines_of_tasks(str(data.tasks)) if task and not prefix else {}
    parts = task.strip("'").split(".")  # a part of a multilabel task is <id>.<label>, and both may hold dots
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    line = next((lines[name] for name in names if name in lines), None)
    return Problem(f"{line}: task {task}", problem.what) if line else problem


def _of_data(config: Config, problems: list[Problem], tried: _Collector) -> CheckReport:
    """The tables: each by itself, and labels against notes and tasks."""
    data = config.data
    tasks = tried(lambda: load_tasks(_set(data.tasks, "data.tasks"), data.task_ids)) or []
    labels = None
    if tasks:
        labels = tried(lambda: labels_of.read_labels(data, tasks))
    else:
        tried(lambda: storage.find(_set(data.labels, "data.labels"), "data.labels"))
    notes = tried(lambda: pa.concat_tables(iter_notes(data, ["note_id", "group_id"])))
    warnings: list[str] = []
    if notes is not None:
        tried(lambda: problems.extend(_sample(config, warnings)))
    if notes is not None and labels is not None:
        problems += labels_of.problems_with(notes, labels)
        warnings += labels_of.doubts(labels)
        readable = labels
        to_learn_from = tried(lambda: labels_of.to_learn_from(readable, notes, tasks, data))
        labels = labels_of.within_limits(labels if to_learn_from is None else to_learn_from, data)
    if tasks and notes is not None and is_annotated(data, tasks):
        tried(lambda: read_deciding(data, tasks))
    if data.pretraining is not None:
        tried(lambda: units(data.for_pretraining, "data.pretraining"))
    n_notes = notes.num_rows if notes is not None else 0
    return CheckReport(tasks, labels if labels is not None else rows.LABELS.empty_table(), n_notes, warnings)


def _of_splits(config: Config, labels: pa.Table) -> Iterator[Problem]:
    """Are there labels in the splits that the config wants to measure and to calibrate on?"""
    if not pc.any(pc.equal(labels["split"], config.evaluation.split)).as_py():
        yield Problem("evaluation.split", f"no task has labels in the split {config.evaluation.split}")
    if config.evaluation.conformal is not None and not pc.any(pc.equal(labels["split"], "dev")).as_py():
        yield Problem("evaluation.conformal", "needs labels in the split dev to calibrate on")


class _Collector:
    """Runs a part of the check; its problems join the others instead of ending the check."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def __call__(self, part: Callable[[], Result]) -> Result | None:
        try:
            return part()
        except InputError as error:
            self.problems += error.problems
            return None


def _set(value: str | None, field: str) -> str:
    if value is None:
        raise InputError([Problem(field, "is not set")])
    return value


def of_settings(config: Config) -> Iterator[Problem]:
    """What other modules know about the names in the config."""
    from raypipe.masking.requirements import problems as masking_problems

    arms = {name: arm.masking for name, arm in config.arms.items() if arm.masking is not None}
    of_masking = masking_problems(arms)
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


def _all_attributions(config: Config) -> list[tuple[str, Attribution]]:
    """The run's attribution and those of single arms, each with its place."""
    own = [(f"arms.{name}.attribution", arm.attribution) for name, arm in config.arms.items()]
    return [("attribution", config.attribution), *((where, one) for where, one in own if one is not None)]


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
    for where, attribution in _all_attributions(config):
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
        try:
            if not read_terms(path):
                yield Problem("masking.mslm.lexicon", f"{path} holds no term")
        except (OSError, UnicodeDecodeError) as error:
            yield Problem("masking.mslm.lexicon", f"{path} cannot be read ({type(error).__name__})")
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


def _sample(config: Config, warnings: list[str]) -> Iterator[Problem]:
    """The first notes, with their text: a wrong column, or a pattern without end, shows here, not after an hour."""
    sample = pa.concat_tables(islice(tables(config.data, ["note_id", "text", "error"]), SAMPLE))
    yield from _patterns(config, sample["text"].drop_null().to_pylist())
    errors = sample["error"]
    n_bad = len(errors) - errors.null_count
    codes = ", ".join(sorted(set(errors.drop_null().to_pylist())))
    codes = codes.replace(Code.UTF8, f"{Code.UTF8}: not UTF-8; {storage.NOT_UTF8}")
    if not len(errors):
        yield Problem("data.notes", "holds no note")
    elif n_bad == len(errors):
        yield Problem("data.notes", f"none of the first {n_bad} notes can be used ({codes})")
    elif n_bad:
        warnings.append(f"{n_bad} of the first {len(errors)} notes cannot be used ({codes})")


def _patterns(config: Config, texts: list[str]) -> Iterator[Problem]:
    """Regular expressions that take too long on one of these texts."""
    for name, arm in config.arms.items():
        for pattern in arm.masking.phi_patterns if arm.masking is not None else ():
            try:
                for text in texts:
                    limits.spans(pattern, text)
            except TimeoutError:
                what = f"{pattern!r} takes over {limits.LIMIT_S:g} s on one of the first notes: write a simpler one"
                yield Problem(f"arms.{name}.masking.phi_patterns", what)


def _doubts(task: Task, counts: dict[str | None, dict[str, int]]) -> Iterator[str]:
    """What will not stop a run, but its result for this task."""
    rare = [option for option in task.options if counts.get(option, {}).get("train", 0) < 2]
    if rare:
        yield f"fewer than 2 training notes of {len(rare)} of its options"
    if sum(1 for of in counts.values() if of.get("test")) < 2:
        yield "test has one class"
    sizes = [of.get("train", 0) for of in counts.values()]
    if max(sizes, default=0) > ONE_SIDED * sum(sizes):
        yield f"over {ONE_SIDED:.0%} of the training labels are one class"


def _model(config: Config, tasks: list[Task]) -> Iterator[Problem]:
    """Layers and context of the model against the config; its tokenizer against the tasks."""
    if config.model.path == "pretrain":
        if config.pretrain is None:
            yield Problem("model.path", "is pretrain, but there is no section pretrain")
        else:
            yield from _sizes(config, config.pretrain.layers, config.pretrain.context)
        return
    from raypipe.attribution.registry import lacks_rules
    from raypipe.models import families, loading

    of_model = loading.check(config.model)
    for where, attribution in _all_attributions(config):
        if (what := lacks_rules(attribution, of_model.model_type)) is not None:
            yield Problem(f"{where}.method", what)
    yield from _sizes(config, of_model.num_hidden_layers, families.context(of_model))
    if config.model.adapter is not None and not (Path(config.model.adapter) / "adapter_model.safetensors").is_file():
        yield Problem("model.adapter", "no adapter_model.safetensors in this folder")
    yield from of_tokens(config, tasks)
    yield from _sentinels(config, tasks, families.FAMILIES[of_model.model_type].sentinels)


def _sentinels(config: Config, tasks: list[Task], of_family: Sequence[str]) -> Iterator[Problem]:
    """Can the tokenizer write what stands for hidden words? Arms share the fault, so it is told of the first."""
    from raypipe.masking import Renderer

    encoder, told = encoder_of(config, tasks), set()
    for name, arm in config.arms.items():
        try:
            if arm.masking is not None:
                Renderer(encoder, arm.masking, config.prompt.max_tokens, of_family, config.train.lora is None)
        except InputError as error:
            if str(error) not in told:
                yield Problem(f"arms.{name}.masking.sentinels", str(error).removeprefix("masking.sentinels: "))
            told.add(str(error))


def _sizes(config: Config, n_layers: int, context: int | None) -> Iterator[Problem]:
    from raypipe.attribution.layers import masking_layer, valid_at, valid_layers
    from raypipe.attribution.registry import method_of

    has = f"the model has layers 0..{n_layers}"
    for section, attribution in _all_attributions(config):
        layer, where = attribution.layer, f"{section}.layer"
        if isinstance(layer, int) and not 0 <= layer <= n_layers:
            yield Problem(where, f"is {layer}, but {has}")
            continue
        with suppress(InputError):  # a method that is not known has been told
            if masking_layer(attribution, n_layers) not in valid_layers(attribution, n_layers):
                yield Problem(where, f"is {layer}, but {has}, and {valid_at(attribution, n_layers)}")
    with suppress(InputError):
        layers = {round(fraction * n_layers) for fraction in config.faithfulness.layers}
        compared = [config.attribution.named(name) for name in config.faithfulness.methods]
        compared = [attribution for attribution in compared if method_of(attribution).reads(attribution) != "none"]
        if compared and not any(layers & {*valid_layers(attribution, n_layers)} for attribution in compared):
            limits = "; ".join(valid_at(attribution, n_layers) for attribution in compared)
            yield Problem("faithfulness.layers", f"{has}, and no method says anything at these: {limits}")
    if context is not None and config.prompt.max_tokens > context:
        yield Problem("prompt.max_tokens", f"is {config.prompt.max_tokens}, but the model's context is {context}")


def encoder_of(config: Config, tasks: Sequence[Task]) -> PromptEncoder:
    """The model's own tokenizer on the config's prompt. Raises `InputError` if it cannot be used."""
    from raypipe.models import loading
    from raypipe.models.prompts import PromptEncoder, with_mark

    try:
        tokenizer = loading.load_tokenizer(config.model)
        prompt = with_mark(config.prompt, tokenizer, (), rows_train=False)  # plain text is the longest mark
        return PromptEncoder(tokenizer, prompt, tasks, config.model.chat)
    except (OSError, ValueError) as error:  # transformers' own; ours is an InputError and passes
        what = str(error) if type(error) is ValueError else type(error).__name__
        raise InputError([Problem("model.path", f"its tokenizer cannot be used: {what}")]) from None


def of_tokens(config: Config, tasks: list[Task]) -> Iterator[Problem]:
    """Can the model say each answer, and tell them apart? Does the longest question leave room for a note?"""
    encoder = encoder_of(config, tasks)
    tokenizer = encoder.tokenizer
    for task in tasks:
        question = encoder.questions[task.id]
        yield from _answers(task, question.option_ids, tokenizer)
        if config.evaluation.mode == "generate" and encoder.eos_id is None:
            yield from _endless(task, question.option_ids)
        n_question = len(encoder.head_ids) + len(question.suffix_ids) + max(map(len, question.option_ids)) + 1
        if n_question >= config.prompt.max_tokens:
            what = f"the question of task {task.id!r} alone has {n_question} tokens and leaves no room for a note"
            yield Problem("prompt.max_tokens", f"is {config.prompt.max_tokens}, but {what}")


def _answers(task: Task, option_ids: tuple[tuple[int, ...], ...], tokenizer: Any) -> Iterator[Problem]:
    where = f"data.tasks: task {task.id!r}"
    first: dict[tuple[int, ...], str] = {}
    for answer, ids in zip(task.answers, option_ids, strict=True):
        if not ids or set(ids) == {tokenizer.unk_token_id}:
            yield Problem(where, f"the tokenizer has no tokens for the answer {answer!r}")
        elif ids in first:
            yield Problem(where, f"the answers {first[ids]!r} and {answer!r} are the same tokens; change a verbalizer")
        first.setdefault(ids, answer)


def _endless(task: Task, option_ids: tuple[tuple[int, ...], ...]) -> Iterator[Problem]:
    from raypipe.evaluation.generation import longer

    for option, other in longer(option_ids).items():
        what = f"{task.answers[option]!r} begins {task.answers[other]!r}, and the tokenizer has no end-of-text token"
        yield Problem(f"data.tasks: task {task.id!r}", f"{what}; change a verbalizer or set evaluation.mode to label")
