"""The settings as documents: complete, in order, and no older than the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from raypipe.settings import config, reference
from tests.settings.test_configfile import FIELDS

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "jobs/configs").glob("*.yaml") if ".tasks." not in path.name)
SECTIONS = dict(reference.json_schema()["$defs"])


def test_the_page_is_current() -> None:
    page = ROOT / "docs/settings.md"
    assert page.read_text() == reference.markdown(), (
        "run `python -m raypipe.settings.reference > docs/settings.md` and commit the page"
    )


def test_the_schema_is_current_and_every_recipe_names_it() -> None:
    schema = ROOT / "docs/settings.schema.json"
    assert schema.read_text() == reference.schema_text(), "run `raypipe schema > docs/settings.schema.json`"
    line = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.M)
    for path in RECIPES:
        assert [(path.parent / name).resolve() for name in line.findall(path.read_text())] == [schema], path.name


def test_every_key_stands_on_the_page() -> None:
    page = reference.markdown()
    for path, _ in FIELDS:
        section, _, key = path.rpartition(".")
        place = f"`{section.replace('some_name', '<name>')}`" if section else "The run"
        (text,) = (part for part in page.split("\n## ")[1:] if place in part.partition("\n")[0].split(", "))
        assert f"\n| `{key}` |" in text, path


def test_links_lead_to_headings() -> None:
    page = reference.markdown()
    headings = {re.sub(r"[^a-z0-9_ -]", "", line[3:].lower()).replace(" ", "-")
                for line in page.splitlines() if line.startswith("## ")}  # fmt: skip
    links = set(re.findall(r"\(#([^)]*)\)", page))
    assert len(links) > 20
    assert links <= headings


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_key_and_section_is_described(name: str) -> None:
    section = SECTIONS[name]
    assert section["description"].rstrip().endswith((".", ").")), "a sentence"
    for key, value in section["properties"].items():
        if "$ref" not in value:  # a section describes itself
            assert value.get("description", "").rstrip().endswith("."), f"{key} needs a sentence"


def test_sections_are_defined_in_the_order_of_a_config() -> None:
    """Each section once, in the files of sections/, and before the one that first holds it."""
    order: list[str] = []

    def visit(schema: dict[str, dict[str, dict[str, object]]]) -> None:
        for value in schema["properties"].values():
            name = reference._section_of(value)
            if name is not None and name not in order:
                visit(SECTIONS[name])
                order.append(name)

    visit(reference.json_schema())
    defined = [
        [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        for path in Path(config.__file__).with_name("sections").glob("*.py")
    ]
    assert sorted(name for names in defined for name in names) == sorted(["Section", *order])
    for names in defined:
        assert names in (["Section"], [name for name in order if name in names])


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("ratio", "number > 0 and < 1 | `0.15` |"),
        ("match_ratio_to", "name, or `null` | `null` |"),
        (
            "training",
            "[section](#pretraintraining-finetune-scorertraining-armsnametrain-train) | `learning_rate: 0.002`, "
            "`batch_rows: 32` |",
        ),
        (
            "lora",
            "[section](#pretraintraininglora-finetunelora-scorertraininglora-armsnametrainlora-trainlora-"
            "comparisonfinetuningsnamelora)"
            " or `null` | `null` |",
        ),
        ("betas", "[number ≥ 0 and < 1, number ≥ 0 and < 1] | `[0.9, 0.95]` |"),
        ("emphasis", "mapping to: number | `{}` |"),
        ("arms", "names, each with a [section](#armsname) | `sft`, `decselfmask` |"),
    ],
)
def test_values_and_defaults_in_words(key: str, row: str) -> None:
    assert f"\n| `{key}` | {row}" in reference.markdown()


def test_the_schema_takes_a_config_and_refuses_a_typo() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = reference.json_schema()
    for path in RECIPES:
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError, match="modle"):
        jsonschema.validate({"modle": {}}, schema)
    with pytest.raises(jsonschema.ValidationError, match="ratoi"):
        jsonschema.validate({"arms": {"a": {"masking": {"ratoi": 0.2}}}}, schema)
