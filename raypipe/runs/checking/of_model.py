"""The model and its tokenizer against the config and the tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.errors import InputError, Problem
from raypipe.notes.tasks import Task
from raypipe.runs.checking.of_settings import all_attributions, all_trainings
from raypipe.settings.config import Config, Model

if TYPE_CHECKING:
    from raypipe.models.prompts import PromptEncoder

SYSTEM_SHOWN = 80  # characters of a template's own system text


def problems(config: Config, tasks: list[Task]) -> Iterator[Problem]:
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
    for where, attribution in all_attributions(config):
        if (what := lacks_rules(attribution, of_model.model_type)) is not None:
            yield Problem(f"{where}.method", what)
    yield from _sizes(config, of_model.num_hidden_layers, families.context(of_model))
    encoder = encoder_of(config, tasks)
    yield from loading.beyond(encoder.tokenizer, of_model.vocab_size)
    yield from of_tokens(config, tasks, encoder)
    yield from _sentinels(config, encoder, families.FAMILIES[of_model.model_type].sentinels)


def _sizes(config: Config, n_layers: int, context: int | None) -> Iterator[Problem]:
    from raypipe.attribution.layers import masking_layer, valid_at, valid_layers
    from raypipe.attribution.registry import method_of

    has = f"the model has layers 0..{n_layers}"
    for section, attribution in all_attributions(config):
        layer, where = attribution.layer, f"{section}.layer"
        if isinstance(layer, int) and not 0 <= layer <= n_layers:
            yield Problem(where, f"is {layer}, but {has}")
            continue
        with suppress(InputError):  # a method that is not known has been told
            if masking_layer(attribution, n_layers) not in valid_layers(attribution, n_layers):
                yield Problem(where, f"is {layer}, but {has}, and {valid_at(attribution, n_layers)}")
    for where, training in all_trainings(config):
        if training.lora is not None and (what := training.lora.misses(n_layers)) is not None:
            yield Problem(f"{where}.lora.first_block", what)
    with suppress(InputError):
        layers = {round(fraction * n_layers) for fraction in config.faithfulness.layers}
        compared = [config.attribution.named(name) for name in config.faithfulness.methods]
        compared = [attribution for attribution in compared if method_of(attribution).reads(attribution) != "none"]
        if compared and not any(layers & {*valid_layers(attribution, n_layers)} for attribution in compared):
            limits = "; ".join(valid_at(attribution, n_layers) for attribution in compared)
            yield Problem("faithfulness.layers", f"{has}, and no method says anything at these: {limits}")
    if context is not None and config.prompt.max_tokens > context:
        yield Problem("prompt.max_tokens", f"is {config.prompt.max_tokens}, but the model's context is {context}")


def _sentinels(config: Config, encoder: PromptEncoder, of_family: Sequence[str]) -> Iterator[Problem]:
    """Can the tokenizer write what stands for hidden words? Arms share the fault, so it is told of the first."""
    from raypipe.masking import Renderer
    from raypipe.masking.strategies import STRATEGIES

    told = set()
    for name, arm in config.arms.items():
        try:
            if arm.masking is not None and arm.masking.strategy in STRATEGIES:  # others have been told
                Renderer(encoder, arm.masking, config.prompt.max_tokens, of_family, config.train.lora is None)
        except InputError as error:
            if str(error) not in told:
                yield Problem(f"arms.{name}.masking.sentinels", str(error).removeprefix("masking.sentinels: "))
            told.add(str(error))


def encoder_of(config: Config, tasks: Sequence[Task]) -> PromptEncoder:
    """The model's own tokenizer on the config's prompt. Raises `InputError` if it cannot be used."""
    from raypipe.models import loading
    from raypipe.models.prompts import PromptEncoder, with_mark

    try:
        tokenizer = loading.load_tokenizer(config.model)
        prompt = with_mark(config.prompt, tokenizer, (), rows_train=False)  # plain text is the longest mark
        return PromptEncoder(tokenizer, prompt, tasks, config.model.chat)
    except (OSError, ValueError, KeyError) as error:  # transformers' own; ours is an InputError and passes
        what = str(error) if type(error) is ValueError else type(error).__name__
        raise InputError([Problem("model.path", f"its tokenizer cannot be used: {what}")]) from None


def of_tokens(config: Config, tasks: list[Task], encoder: PromptEncoder | None = None) -> Iterator[Problem]:
    """Can the model say each answer, and tell them apart? Does the longest question leave room for a note?"""
    encoder = encoder or encoder_of(config, tasks)
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


def tokenizer_of(config: Config) -> Model | None:
    """Where the tokenizer is; None if the run's own `pretrain` has not made it yet."""
    if config.model.path != "pretrain":
        return config.model
    pretrain = Path(config.runs) / config.name / "pretrain"
    is_made = (pretrain / "rows" / "manifest.json").exists()
    return config.model.model_copy(update={"path": str(pretrain / "tokenizer")}) if is_made else None


def system_texts(config: Config, encoder: PromptEncoder) -> Iterator[str]:
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
