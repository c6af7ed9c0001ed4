"""The settings as documents: `docs/settings.md` for readers, a JSON Schema for editors. Both come from `Config` alone.

python -m raypipe.settings.reference > docs/settings.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from raypipe.settings.config import Config
from raypipe.settings.sections.values import NAME

Schema = Mapping[str, Any]

HEAD = """\
# Settings

Every key of a config file, with its values and its default. A config names only what differs from the defaults; on the
command line, `--set section.key=value` lays one value over the file. What the text calls *None* is `null` in YAML. A
*name* has at most 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit.
*Paper* and *code* mark what the authors do (arXiv 2606.09466 and its repository, or the source that is named), *ours*
marks a deviation; all other defaults are ours.

This page is generated: `python -m raypipe.settings.reference > docs/settings.md`. Descriptions stand in
`raypipe/settings/sections/`.
"""
TABLE = "| key | value | default | meaning |\n|---|---|---|---|"
KINDS = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a config file (draft 2020-12), for editors that complete and check YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def schema_text() -> str:
    """The schema as a file."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def markdown() -> str:
    """The text of `docs/settings.md`: a table of the run's own keys, then one for each section."""
    whole = json_schema()
    sections = _sections(whole)
    tables = [_table(schema, sections, whole["$defs"]) for schema in (whole, *map(whole["$defs"].get, sections))]
    titles = ["The run", *(", ".join(f"`{place}`" for place in places) for places in sections.values())]
    texts = [whole["description"], *(whole["$defs"][name]["description"] for name in sections)]
    parts = zip(titles, texts, tables, strict=True)
    return "\n".join([HEAD, *(f"## {title}\n\n{text}\n\n{table}\n" for title, text, table in parts)])


def _sections(whole: Schema) -> dict[str, list[str]]:
    """Where each section stands in a config (dotted paths), by the name of its class; in the order of the config."""
    places: dict[str, list[str]] = {}

    def visit(schema: Schema, path: str) -> None:
        for key, value in schema["properties"].items():
            name = _section_of(value)
            if name is not None:
                place = f"{path}{key}.<name>" if "patternProperties" in value else f"{path}{key}"
                places.setdefault(name, []).append(place)
                visit(whole["$defs"][name], f"{place}.")

    visit(whole, "")
    return places


def _section_of(value: Schema) -> str | None:
    """The class of the section that a key holds, or a mapping of such sections, or null; None for any other value."""
    inside = [value, *value.get("anyOf", ()), *value.get("patternProperties", {}).values()]
    return next((part["$ref"].rpartition("/")[2] for part in inside if "$ref" in part), None)


def _table(schema: Schema, sections: Mapping[str, list[str]], classes: Mapping[str, Schema]) -> str:
    lines = [TABLE]
    for key, value in schema["properties"].items():
        name = _section_of(value)
        text = value.get("description") or classes[str(name)]["description"].partition("\n\n")[0]
        default = _default(value) if name is None else _section_default(value, classes[name])
        if "defaults_of" in schema and key in classes["Training"]["properties"]:
            default = f"`{schema['defaults_of']}.{key}`"
        kind = _kind(value) if name is None else _section_kind(value, sections[name])
        cells = (f"`{key}`", kind, default, " ".join(text.split()))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _section_kind(value: Schema, places: list[str]) -> str:
    anchor = re.sub(r"[^a-z0-9_ -]", "", ", ".join(places).lower()).replace(" ", "-")
    link = f"[section](#{anchor})"
    if "patternProperties" in value:
        return f"names, each with a {link}"
    return f"{link} or `null`" if "anyOf" in value else link


def _section_default(value: Schema, section: Schema) -> str:
    """Nothing if the section's own defaults hold; else the keys that differ from them, or the names of sections."""
    default = value.get("default")
    if "patternProperties" in value:
        return ", ".join(f"`{name}`" for name in value["default"])
    if not isinstance(default, Mapping):
        return "" if "$ref" in value else "`null`"
    own = {key: field.get("default") for key, field in section["properties"].items() if "$ref" not in field}
    return ", ".join(f"`{key}: {_plain(default[key])}`" for key in own if default[key] != own[key])


def _default(value: Schema) -> str:
    return f"`{_plain(value['default'])}`"


def _plain(value: Any) -> str:
    """A value as one writes it in YAML."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Schema) -> str:
    """The values of a key in words: type and range."""
    if "anyOf" in value:
        return ", or ".join(_kind(part) for part in value["anyOf"])
    if "enum" in value or "const" in value:
        return ", ".join(f"`{option}`" for option in value.get("enum", [value.get("const")]))
    if value["type"] == "null":
        return "`null`"
    if value["type"] == "array":
        items = [_kind(part) for part in value.get("prefixItems", ())]
        return f"[{', '.join(items)}]" if items else f"list of: {_kind(value['items'])}"
    if value["type"] == "object":
        return f"mapping to: {_kind(value['additionalProperties'])}"
    if value.get("pattern") == NAME:
        return "name"
    return " ".join([KINDS[value["type"]], " and ".join(_bounds(value))]).strip()


def _bounds(value: Schema) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    yield from (f"{sign} {value[bound]}" for bound, sign in signs.items() if bound in value)
    if "pattern" in value:
        yield f"matching `{value['pattern']}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
