"""Exposure: a candidate's score is what the model gives it alone, and a model that has learned a secret shows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.evaluation import memorisation
from raypipe.evaluation.scoring import LabelScorer
from raypipe.models.loading import Loaded
from raypipe.notes.canaries import candidates
from tests.tiny_models import tiny_loaded

CONTEXT = "Cartella di Ada Zanon:"


def ids_of(loaded: Loaded, text: str) -> memorisation.Ids:
    return tuple(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def of_every_candidate(loaded: Loaded, context: memorisation.Ids, all_ids: list[memorisation.Ids]) -> list[float]:
    """The definition: one forward pass for each."""
    out = []
    for ids in all_ids:
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[*context, *ids]])).logits[0].log_softmax(-1)
        out.append(sum(float(logits[len(context) - 1 + i, token]) for i, token in enumerate(ids)))
    return out


def test_sharing_beginnings_changes_no_score() -> None:
    loaded = tiny_loaded()
    context, all_ids = ids_of(loaded, CONTEXT), [ids_of(loaded, f" {c}") for c in candidates("##")[::7]]
    found = memorisation.log_p(LabelScorer(loaded, 2048), context, all_ids)
    assert np.allclose(found, of_every_candidate(loaded, context, all_ids), atol=1e-3)


def test_rank_and_exposure() -> None:
    log_p_C = np.array([-3.0, -1.0, -2.0, -1.0])
    assert [memorisation.rank(log_p_C, c) for c in range(4)] == [4, 2, 3, 2]
    assert memorisation.exposure(1, 1024) == 10
    assert memorisation.exposure(1024, 1024) == 0


def test_a_model_that_learned_the_secret_shows_it() -> None:
    loaded = tiny_loaded()
    context, secrets = ids_of(loaded, CONTEXT), candidates("##")
    all_ids, secret = [ids_of(loaded, f" {c}") for c in secrets], 41
    row = torch.tensor([[*context, *all_ids[secret]]])
    assert not memorisation.is_extracted(loaded, context, all_ids[secret])
    optimizer = torch.optim.Adam(loaded.model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loaded.model(row, labels=row).loss.backward()
        optimizer.step()
    scores = memorisation.log_p(LabelScorer(loaded, 8192), context, all_ids)
    assert memorisation.rank(scores, secret) == 1
    assert memorisation.exposure(1, len(secrets)) == pytest.approx(np.log2(100))
    assert memorisation.is_extracted(loaded, context, all_ids[secret])
    assert not memorisation.is_extracted(loaded, context, all_ids[secret + 1])
