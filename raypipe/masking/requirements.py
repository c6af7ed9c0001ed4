"""Checks, before anything starts, that the masking settings of all arms make sense together."""

from __future__ import annotations

from collections.abc import Mapping

from raypipe.errors import Problem
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.strategy import COMMON, RELEVANCE, Strategy
from raypipe.settings.config import Masking
from raypipe.settings.yamlfile import did_you_mean

_OF_SELECTION = {"topk": {"ratio"}, "sample": {"ratio", "temperature"}, "hysteresis": {"hysteresis"}}
_OF_SEQUENCES = ("format", "max_spans", "sentinels")  # decide which words of a note stand in one example
_OF_POOL = ("stop_words", "phi_patterns")  # decide which words a ratio is a share of


def problems(arms: Mapping[str, Masking]) -> list[Problem]:
    """Everything wrong with the masking of the arms, one line each, with its place in the config."""
    out: list[Problem] = []
    for name, settings in arms.items():
        where = f"arms.{name}.masking"
        strategy = STRATEGIES.get(settings.strategy)
        if strategy is None:
            choices = f"known: {', '.join(STRATEGIES)}{did_you_mean(settings.strategy, STRATEGIES)}"
            out.append(Problem(f"{where}.strategy", f"unknown strategy {settings.strategy!r}; {choices}"))
        else:
            out += [Problem(f"{where}.{key}", what) for key, what in _in_vain(settings, strategy).items()]
            out += [Problem(f"{where}.{key}", what) for key, what in _lacking(settings, arms).items()]
            out += [Problem(f"{where}.match_ratio_to", what) for what in _mismatched(name, settings, arms)]
    deltas = {s.selective.delta for s in arms.values() if (s.strategy, s.selective.source) == ("selective", "tagger")}
    if len(deltas) > 1:
        out.append(Problem("arms", f"selective.delta is {sorted(deltas)}: labelled notes are judged by one of them"))
    return out


def order(arms: Mapping[str, Masking]) -> list[str]:
    """Names of the arms, each after the arm it matches. Arms must be free of `problems`."""
    done: list[str] = []
    while len(done) < len(arms):
        done += [name for name, s in arms.items() if name not in done and s.match_ratio_to in (None, *done)]
    return done


def needs(arms: Mapping[str, Masking]) -> frozenset[str]:
    """What the arms need from the corpus: the constants of masking/strategy.py."""
    return frozenset().union(*(STRATEGIES[s.strategy].needs(s) for s in arms.values()))


def with_draws(arms: Mapping[str, Masking]) -> dict[str, Masking]:
    """The arms with their actual number of draws: a refilled arm has as many as the arm that it refills."""
    own = {name: s.draws if is_sampled(s) else 1 for name, s in arms.items()}
    refilled = {
        n: own[s.match_ratio_to] for n, s in arms.items() if STRATEGIES[s.strategy].refills and s.match_ratio_to
    }
    return {name: s.model_copy(update={"draws": {**own, **refilled}[name]}) for name, s in arms.items()}


def is_sampled(settings: Masking) -> bool:
    """Whether another draw hides other words."""
    strategy = STRATEGIES[settings.strategy]
    return strategy.samples or ("selection" in strategy.reads and settings.selection == "sample")


def reads(settings: Masking, strategy: Strategy) -> frozenset[str]:
    """Keys of its section that an arm reads."""
    read = (COMMON | strategy.reads) - strategy.ignores
    if "selection" in read:
        read -= {"ratio", "temperature", "hysteresis"} - _OF_SELECTION[settings.selection]
    if settings.match_ratio_to is not None:
        read -= {"ratio"}
    if is_sampled(settings):
        read |= {"draws"}
    if strategy.once:
        read -= {"match_ratio_to", "format", "max_spans"}
    if strategy.refills:
        read -= {"condition", "instruction", "prompt_loss", "stop_words", "max_span_words"}
    return read


def _in_vain(settings: Masking, strategy: Strategy) -> dict[str, str]:
    """Keys that differ from the profile's default although this arm does not read them, with the reason."""
    default = Masking(profile=settings.profile)
    changed = [key for key in Masking.model_fields if getattr(settings, key) != getattr(default, key)]
    read = reads(settings, strategy)
    return {key: _why(key, settings) for key in changed if key not in read}


def _lacking(settings: Masking, arms: Mapping[str, Masking]) -> dict[str, str]:
    """Keys that need something that is missing."""
    lacking = {}
    if settings.strategy == "mslm" and settings.mslm.terms == "lexicon" and settings.mslm.lexicon is None:
        lacking["mslm.lexicon"] = "terms: lexicon needs a file with one term per line"
    valid = {name: arm for name, arm in arms.items() if arm.strategy in STRATEGIES}
    if settings.condition == "item" and RELEVANCE not in needs(valid):
        lacking["condition"] = "item needs a task for each note, and no arm asks for relevance, so none is chosen"
    return lacking


def _why(key: str, settings: Masking) -> str:
    if key == "ratio" and settings.match_ratio_to is not None:
        return f"match_ratio_to copies the ratio of {settings.match_ratio_to}; remove one of the two"
    if key == "draws":
        return "this arm hides the same words in every draw; remove it, or take a strategy or selection that samples"
    by = f"selection {settings.selection}" if key in ("ratio", "temperature", "hysteresis") else "this strategy"
    return f"not read by {settings.strategy} ({by}); remove it"


def _mismatched(name: str, settings: Masking, arms: Mapping[str, Masking]) -> list[str]:
    """Why this arm cannot copy the masking ratio of the arm that it names."""
    target = settings.match_ratio_to
    if target is None:
        return []
    if target not in arms:
        return [f"no arm with masking is called {target}{did_you_mean(target, arms)}"]
    reached = _chain(name, arms)
    if name in reached[1:]:
        return [f"arms match one another in a circle: {' -> '.join(reached)}"]
    strategy = STRATEGIES.get(arms[target].strategy)
    if strategy is not None and strategy.refills:
        return [f"arm {target} hides nothing ({arms[target].strategy}): there is no ratio to copy"]
    own = STRATEGIES[settings.strategy]
    differing = [key for key in _OF_SEQUENCES if getattr(settings, key) != getattr(arms[target], key)]
    if own.refills and differing:
        return [f"the sequences of arm {target} have another {key}; give this arm the same" for key in differing]
    others = [key for key in _OF_POOL if getattr(settings, key) != getattr(arms[target], key)]
    if others and not own.refills:
        return [
            f"arm {target} has another {key}, so its ratio is of other words; give this arm the same" for key in others
        ]
    if "selection" in own.reads and settings.selection == "hysteresis":
        return ["selection hysteresis takes as many words as pass its thresholds; choose topk or sample"]
    return []


def _chain(name: str, arms: Mapping[str, Masking]) -> list[str]:
    """The arm, the arm it matches, and so on, up to the first repetition."""
    seen = [name]
    while (following := arms[seen[-1]].match_ratio_to) in arms and following is not None:
        seen.append(following)
        if seen.count(following) > 1:
            break
    return seen
