"""A config file: YAML to `Config` with every problem at once, and back; and which keys determine a step's output.

    config = configfile.load("jobs/configs/demo.yaml", overrides=["attribution.layer=3"])

Problems read `file:line: dotted.path: message`. See yamlfile.py for the dialect.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from raypipe.errors import InputError, Problem
from raypipe.settings import yamlfile
from raypipe.settings.config import Config
from raypipe.settings.yamlfile import Document, Place, Salvaged

Overrides = Sequence[str] | Mapping[str, Any]  # `a.b=value`, whose values are YAML too; or values by dotted keys
RESOLVED = "config.yaml"  # in the folder of a run: its settings, every default written out


def load(path: str | Path, overrides: Overrides = ()) -> Config:
    """The config in `path`, with overrides laid over it.

    Raises `InputError` with every problem in it, and nothing else, whatever the file holds.
    """
    return yamlfile.validate(Config, written(path, overrides))


def written(path: str | Path, overrides: Overrides = ()) -> Document:
    """The file with overrides laid over it, before validation: defaults are not filled in.

    `path` may be the folder of a run: its config.yaml then, and the run is where the folder lies.
    """
    folder = Path(path).resolve() if Path(path).is_dir() else None
    if folder is not None and not (folder / RESOLVED).exists():
        raise InputError(
            [Problem(str(path), f"cannot be read: a folder without {RESOLVED} is not the folder of a run")]
        )
    document = yamlfile.read(path if folder is None else folder / RESOLVED)
    if document.value is None:
        document.value = {}
    if folder is not None and isinstance(document.value, dict):
        document.value |= {"runs": str(folder.parent), "name": folder.name}
    if isinstance(document.value, dict):
        if isinstance(overrides, Mapping):
            for dotted, value in overrides.items():
                _lay(document, dotted, yamlfile.of_python(value, f"changes: {dotted}"), "changes")
        else:
            for override in overrides:
                _set(document, override)
    return document


def salvaged(path: str | Path, overrides: Overrides = ()) -> Salvaged[Config]:
    """What of the file makes a config, and every problem of the rest."""
    return yamlfile.salvaged(Config, written(path, overrides))


def changed(value: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a document's value (`written`) with other values at dotted keys; `build` turns it into a `Config`."""
    whole: dict[str, Any] = copy.deepcopy(dict(value))
    for dotted, new in changes.items():
        _put(whole, _place(whole, dotted.split(".")), tuple(new) if isinstance(new, list) else new)
    return whole


def build(value: Mapping[str, Any], name: str) -> Config:
    """A document's value as a `Config`; `name` stands before its problems."""
    return yamlfile.validate(Config, Document(name, dict(value)))


def located(error: InputError, path: str | Path, overrides: Overrides = ()) -> InputError:
    """The same problems; those of a config key (`attribution.layer: ...`) with the key's line in the file at `path`."""
    document = written(path, overrides)
    return InputError([_located(problem, document) for problem in error.problems])


def _located(problem: Problem, document: Document) -> Problem:
    key, colon, rest = problem.where.partition(":")
    if key.split(".")[0] not in Config.model_fields:
        return problem
    return replace(problem, where=document.where(_place(document.value, key.split("."))) + colon + rest)


def dump(config: Config) -> str:
    """The resolved config as YAML; `load` of it gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def determinants(config: Config, sections: Sequence[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the named sections (dotted keys allowed), and the listings of the input files, by name.

    A step stores this beside its output, so that a refusal can name the keys that changed.
    """
    whole = config.model_dump(mode="json")
    return {**{name: _at(whole, name) for name in sections}, "inputs": dict(inputs)}


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two nested dicts, sorted. A key on one side only is named as a whole."""
    changed = [str(key) for key in old.keys() ^ new.keys()]
    for key in old.keys() & new.keys():
        before, after = old[key], new[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += [f"{key}.{inner}" for inner in changed_keys(before, after)]
        elif _read_back(before) != _read_back(after):
            changed.append(key)
    return sorted(changed)


def common(new: Any, old: Any) -> Any:
    """`new` without the keys, at any depth, that `old` does not have."""
    if not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return new
    return {key: common(value, old[key]) for key, value in new.items() if key in old}


def _read_back(value: Any) -> Any:
    """A value as JSON keeps it: lists where there were tuples."""
    return json.loads(json.dumps(value))


def _at(whole: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        whole = whole[key]
    return whole


def _set(document: Document, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        document.problems.append(Problem(f"--set {dotted}", "must look like section.key=value"))
        return
    try:
        _lay(document, dotted, yamlfile.parse(text, f"--set {dotted}"), "--set")
    except InputError as error:
        document.problems += error.problems


def _lay(document: Document, dotted: str, value: Document, whence: str) -> None:
    """Lay a value over a key; `whence` is its line."""
    if not all(dotted.split(".")):
        document.problems.append(Problem(f"{whence} {dotted}", "must look like section.key"))
        return
    document.problems += value.problems
    place = _place(document.value, dotted.split("."))
    _put(document.value, place, value.value)
    document.lines[place] = whence
    for inner, written in value.written.items():
        document.lines[place + inner] = whence
        document.written[place + inner] = written


def _put(whole: dict[Any, Any], place: Place, value: Any) -> None:
    """Sets the value at a place. What is no section on the way there becomes one; validation says if it must not."""
    section = whole
    for key in place[:-1]:
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    section[place[-1]] = value


def _place(value: Any, parts: list[str]) -> Place:
    """The keys that `parts` name. A key may hold dots itself (arms.v1.2.masking): the longest that exists wins."""
    place: list[str] = []
    while parts:
        n = next((n for n in range(len(parts), 0, -1) if isinstance(value, dict) and ".".join(parts[:n]) in value), 1)
        place.append(".".join(parts[:n]))
        value = value.get(place[-1]) if isinstance(value, dict) else None
        parts = parts[n:]
    return tuple(place)
