"""A search whose truth we set, and the analysis of it."""

from __future__ import annotations

import pytest

from raypipe.tuning import analysis
from raypipe.tuning.trial_tables import Search
from tests.tuning.searches import made_search


@pytest.fixture(scope="session")
def search() -> Search:
    return made_search()


@pytest.fixture(scope="session")
def results(search: Search) -> list[analysis.Results]:
    return [of_model for model in search.models if (of_model := analysis.results(search, model)) is not None]
