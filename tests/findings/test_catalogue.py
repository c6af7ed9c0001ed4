"""Everything that a config can name is listed, each with a line."""

from __future__ import annotations

import pytest

from raypipe.attribution.registry import METHODS
from raypipe.findings.catalogue import KINDS, catalogue
from raypipe.masking.strategies import STRATEGIES
from raypipe.models.families import FAMILIES


@pytest.mark.parametrize(
    ("kind", "names"),
    [("methods", METHODS), ("strategies", STRATEGIES), ("families", FAMILIES), ("recipes", ["jobs/configs/demo.yaml"]),
     ("spaces", ["tune_spaces/smoke.py"])],
)  # fmt: skip
def test_every_name_is_there(kind: str, names: list[str]) -> None:
    title, *lines = catalogue([kind]).splitlines()
    assert title == f"{kind}:"
    assert all(any(line.split()[0].endswith(name) for line in lines) for name in names)
    if kind != "families":
        assert all(len(line.split()) > 1 for line in lines), "each says what it is"
    assert all(len(line) < 200 for line in lines)


def test_all_kinds_by_default() -> None:
    assert [line[:-1] for line in catalogue().splitlines() if line.endswith(":") and line[0] != " "] == list(KINDS)
