"""Strict YAML: every value has its line, nothing is executed or guessed, and all problems are reported at once.

Differences from plain `yaml.safe_load`: a key given twice is an error; tags, over 100,000 values (alias bombs count
expanded), over 20 levels and over 1 MB are refused; keys are strings as written; `1e-3` is a number, `007` and
`2024-01-01` are strings, `.inf` and `.nan` do not exist; `${NAME}` in a value is the environment variable NAME;
sequences are tuples. `no`, `yes` and `on` stay booleans, as every other YAML 1.1 reader sees them: where the schema
demands a string, the message says to quote them.
"""

from __future__ import annotations

import copy
import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from raypipe.errors import InputError, Problem

Place = tuple[str | int, ...]  # keys and indices from the top of the document
Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES, MAX_DEPTH, MAX_VALUES = 1_000_000, 20, 100_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MESSAGES = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
}


@dataclass
class Document:
    """A parsed file: its value, and for every place in it the line (`file:line`) and the text as written."""

    name: str
    value: Any = None
    lines: dict[Place, str] = field(default_factory=dict)
    written: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, place: Place) -> str:
        """`file:line: dotted.path`; the line of the nearest enclosing key if the place itself is not written."""
        enclosing = next((place[:n] for n in range(len(place), -1, -1) if place[:n] in self.lines), ())
        line = self.lines.get(enclosing, self.name)
        return f"{line}: {'.'.join(map(str, place))}" if place else line

    def problem(self, place: Place, what: str) -> Problem:
        """A problem at this place."""
        return Problem(self.where(place), what)


class _Loader(yaml.SafeLoader):
    """Composes nodes only, to a bounded depth, with the few implicit types that we want."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"over {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_INT, _FLOAT, _BOOL, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))
_STR, _SEQ, _MAP = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))
_TRUE = ("true", "yes", "on")
for _tag, _pattern, _first in (
    (_BOOL, r"(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    (_INT, r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (_FLOAT, r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", "-+0123456789."),
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def parse(text: str, name: str) -> Document:
    """The document that `text` holds. Syntax errors raise `InputError`; all else is collected in `.problems`."""
    document = Document(name)
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError([Problem(name + line, f"not valid YAML: {error.problem}")]) from None
    except yaml.YAMLError:
        raise InputError([Problem(name, "not valid YAML: it holds control characters")]) from None
    if root is not None:
        document.value = _Reader(document).value(root, ())
    return document


def of_python(value: Any, name: str) -> Document:
    """The same of a value that a program has, as `parse` would make it of YAML: tuples for lists, text for paths."""
    document = Document(name)
    document.value = _Reader(document).plain(value, ())
    return document


def read(path: str | Path) -> Document:
    """`parse` of a file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(
            [Problem(str(path), f"cannot be read: {getattr(error, 'strerror', 'no such path')}")]
        ) from None
    if len(raw) > MAX_BYTES:
        raise InputError([Problem(str(path), f"over {MAX_BYTES:,} bytes: not a configuration")])
    try:
        return parse(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise InputError([Problem(str(path), "not valid UTF-8")]) from None


class _Reader:
    """Turns nodes into values and notes where each came from."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.n_values = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.document.lines.setdefault(place, f"{self.document.name}:{node.start_mark.line + 1}")
        self.count(place)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return tuple(self.value(child, (*place, i)) for i, child in enumerate(node.value))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        return self.refuse(place, f"tag {node.tag} is not allowed")

    def count(self, place: Place) -> None:
        self.n_values += 1
        # an alias may point at its own parent, so depth is counted here too
        if self.n_values > MAX_VALUES or len(place) > MAX_DEPTH:
            raise InputError([self.document.problem(place[:3], "too many values or levels")])

    def plain(self, value: Any, place: Place) -> Any:
        self.count(place)
        if isinstance(value, Mapping):
            return {str(key): self.plain(inner, (*place, str(key))) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return tuple(self.plain(inner, (*place, i)) for i, inner in enumerate(value))
        if isinstance(value, str | os.PathLike):
            return self.expand(os.fspath(value), place)
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return self.refuse(place, f"not a usable value ({type(value).__name__})")

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, child in node.value:
            line = f"{self.document.name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.problems.append(Problem(line, "a key must be plain text"))
                continue
            here = (*place, key_node.value)
            if key_node.value in out:
                self.document.problems.append(Problem(f"{line}: {'.'.join(map(str, here))}", "key given twice"))
                continue
            self.document.lines[here] = line
            out[key_node.value] = self.value(child, here)
        return out

    def scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = node.value
        self.document.written[place] = text
        try:
            if node.tag == _STR:
                return self.expand(text, place)
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT and math.isfinite(float(text)):
                return float(text)
            if node.tag == _BOOL:
                return text.lower() in _TRUE
            if node.tag == _NULL:
                return None
        except ValueError:
            pass  # `!!int abc`, or more digits than Python reads
        is_foreign = node.tag not in (_INT, _FLOAT)
        return self.refuse(place, f"tag {node.tag} is not allowed" if is_foreign else "not a usable value")

    def expand(self, text: str, place: Place) -> str:
        if "\0" in text:  # "a\0b"; no path may hold it
            self.refuse(place, "holds a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in text):  # as escapes of JSON are for YAML
            self.refuse(place, "holds half of a character; write it out")
        for name in _VARIABLE.findall(text):
            if name not in os.environ:
                self.refuse(place, f"the environment variable {name} is not set")
        return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), text)

    def refuse(self, place: Place, what: str) -> None:
        self.document.problems.append(self.document.problem(place, what))


def validate(model: type[Model], document: Document) -> Model:
    """The document as a `model`. Raises `InputError` with every problem of the document, the parser's included."""
    problems = list(document.problems)
    try:
        # strict: "5" is no number and true is no 1; defaults stand in for an empty file
        result = model.model_validate({} if document.value is None else document.value, strict=True)
    except ValidationError as error:
        problems += _translate(model, document, error)
        raise InputError(problems) from None
    if problems:
        raise InputError(problems)
    return result


@dataclass(frozen=True)
class Salvaged(Generic[Model]):
    """What could be read of a document with mistakes, so that the rest of it can be checked in the same go."""

    result: Model | None  # the document without the places that are wrong; None if nothing could be made of it
    problems: list[Problem]
    left_out: frozenset[str]  # dotted places that are wrong

    def is_of_left_out(self, dotted: str) -> bool:
        """Does a problem at this key come from what was left out?"""
        return any(
            f"{place}.".startswith(f"{dotted}.") or f"{dotted}.".startswith(f"{place}.") for place in self.left_out
        )


def salvaged(model: type[Model], document: Document) -> Salvaged[Model]:
    """As `validate`, but a place that is wrong is a problem and is left out."""
    problems, value = list(document.problems), {} if document.value is None else copy.deepcopy(document.value)
    out = Salvaged[Model](None, problems, frozenset(problem.where.rpartition(": ")[2] for problem in problems))
    while True:
        try:
            return replace(out, result=model.model_validate(value, strict=True))
        except ValidationError as error:
            more = [
                p for p in _translate(model, document, error) if not out.is_of_left_out(p.where.rpartition(": ")[2])
            ]
            problems += more if isinstance(value, dict) else list(_translate(model, document, error))
            places = {
                _written_part(one["loc"], value) for one in error.errors(include_url=False, include_context=False)
            }
        if () in places or not isinstance(value, dict):
            return out
        for place in places:
            _remove(value, place)
        out = replace(out, left_out=out.left_out | {".".join(map(str, place)) for place in places})


def _remove(value: dict[str, Any], place: Place) -> None:
    """Take the nearest enclosing key of a place out of nested dicts; lists are tuples, and go as a whole."""
    for key in place[:-1]:
        if not isinstance(value.get(str(key)), dict):
            value.pop(str(key), None)
            return
        value = value[str(key)]
    value.pop(str(place[-1]), None)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`. Did you mean 'x'?` if one of the choices is close, else an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f". Did you mean {close[0]!r}?" if close else ""


def _translate(model: type[BaseModel], document: Document, error: ValidationError) -> Iterator[Problem]:
    """One problem per place: pydantic reports each branch of a union apart, and names it in the location."""
    messages: dict[Place, list[str]] = {}
    for one in error.errors(include_url=False, include_context=False):
        place = _written_part(one["loc"], document.value)
        if one["type"] == "extra_forbidden":
            what = "unknown key" + did_you_mean(str(place[-1]), fields_at(model, place[:-1]))
        else:
            what = _message(one["type"], one["msg"], one["loc"])
        if what not in messages.setdefault(place, []):
            messages[place].append(what)
    for place, whats in messages.items():
        what = " or ".join(whats).replace(" or must be ", " or ")
        yield document.problem(place, what + _hint(document, place, whats))


def _message(kind: str, message: str, loc: Place) -> str:
    if kind == "missing":
        return f"needs {loc[-1]!r}" if isinstance(loc[-1], str) else f"needs at least {loc[-1] + 1} values"
    if kind == "string_pattern_mismatch":
        return message.replace("String should match pattern", "must match")
    return _MESSAGES.get(kind) or message.replace("Input should", "must").removeprefix("Value error, ")


def _hint(document: Document, place: Place, whats: list[str]) -> str:
    written = document.written.get(place)
    if not written or whats[0].startswith("unknown key"):
        return ""
    if "must be a string" in whats:
        return f'; quote it: "{written}"'
    if len(written) > 40 or "@" in written or ":/" in written:  # it may hold a credential
        return ""
    return f"; got {written!r}"


def _written_part(loc: Place, value: Any) -> Place:
    """The part of pydantic's location that is a place in the document."""
    place: list[str | int] = []
    for key in loc:
        inside = isinstance(value, Mapping) and key in value
        inside = inside or (isinstance(value, tuple) and isinstance(key, int) and key < len(value))
        if not inside:
            break
        place.append(key)
        value = value[key]
    return tuple(place)


def fields_at(model: type[BaseModel], place: Place) -> Mapping[str, FieldInfo]:
    """The keys of the section at `place` in a document of this model, and what they hold; none if it is no section."""
    kind: Any = model
    for key in place:
        section = _section(kind)
        if section is not None:
            kind = section.model_fields[str(key)].annotation if key in section.model_fields else None
        else:  # a dict or a tuple of sections: the key is the user's own
            kind = next((arg for arg in get_args(kind) if _section(arg)), None)
    section = _section(kind)
    return section.model_fields if section else {}


def _section(kind: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Section | None`, not looking into containers."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if get_origin(kind) in (dict, tuple, list):
        return None
    return next((section for arg in get_args(kind) if (section := _section(arg))), None)
