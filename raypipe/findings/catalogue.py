"""What a config can name: attribution methods, masking strategies, model families, recipes and search spaces.

Each with a line from where it is defined: the first sentence of its docstring, or of the comment that opens its file.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import raypipe
from raypipe.attribution.registry import METHODS
from raypipe.masking.strategies import STRATEGIES
from raypipe.models.families import FAMILIES
from raypipe.runs.outcomes import shown

KINDS = ("methods", "strategies", "families", "recipes", "spaces")
CHECKOUT = Path(raypipe.__file__).parents[1]  # recipes and spaces lie beside the package; an installed one has none


def catalogue(kinds: Iterable[str] = KINDS) -> str:
    """All names of these kinds."""
    return "\n\n".join("\n".join([f"{kind}:", *_lines(_entries(kind))]) for kind in kinds)


def _entries(kind: str) -> dict[str, str]:
    if kind == "methods":
        return {name: _of_method(name) for name in METHODS}
    if kind == "strategies":
        return {name: _sentence(strategy.hide.__doc__) for name, strategy in STRATEGIES.items()}
    if kind == "families":
        return {name: "with rules for AttnLRP" if family.rules else "" for name, family in FAMILIES.items()}
    if kind == "recipes":
        paths = sorted((CHECKOUT / "jobs" / "configs").glob("*.yaml"))
        return {shown(path): _of_comment(path) for path in paths if ".tasks." not in path.name}
    paths = sorted((CHECKOUT / "tune_spaces").glob("*.py"))
    return {shown(path): _sentence(ast.get_docstring(ast.parse(path.read_text()))) for path in paths}


def _lines(entries: dict[str, str]) -> list[str]:
    width = max((len(name) for name in entries), default=0)
    return [f"  {name:{width}}  {what}".rstrip() for name, what in entries.items()] or ["  none beside this package"]


def _of_method(name: str) -> str:
    """From its own file; else from that of the function that computes it."""
    own = f"raypipe.attribution.{name}"
    module = own if importlib.util.find_spec(own) else METHODS[name].attribute.__module__
    return _sentence(importlib.import_module(module).__doc__)


def _of_comment(path: Path) -> str:
    comment = re.match(r"(#.*\n)*", path.read_text())
    return _sentence(re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE)) if comment else ""


def _sentence(text: str | None) -> str:
    """The first sentence, at most about a line of it."""
    flat = " ".join((text or "").partition("\n\n")[0].split())
    first = re.split(r"(?<=[.:?])(?<! al\.) ", flat)[0].rstrip(".:")
    return first if len(first) <= 100 else first[:97].rpartition(" ")[0] + " ..."
