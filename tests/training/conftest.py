from __future__ import annotations

import pytest

from raypipe.training import loss


@pytest.fixture
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that has them, or emulates them: what is computed is the same."""
    monkeypatch.setattr(loss, "multiplies_bfloat16", lambda device: True)
