"""A slice of `make bad-input`: some cases of every family."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.bad_input import families
from tests.bad_input.case import Case
from tests.bad_input.ground import Ground, lay
from tests.guard.conftest import as_before  # noqa: F401 (commands protect this process)

OF_EACH, STEP = 3, 7  # cases of a family, and how far apart


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return lay(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.__name__)
def test_the_outcome_is_the_stated_one(family: families.Family, ground: Ground, tmp_path: Path) -> None:
    cases: Iterator[Case] = islice(family(ground), 0, OF_EACH * STEP, STEP)
    for verdict in [case.judged(tmp_path) for case in cases]:
        assert not verdict.fault, (verdict.name, verdict.fault, verdict.result.err)
        assert not verdict.leaks, verdict.name
