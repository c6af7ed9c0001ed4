"""Words as a bidirectional encoder sees them, one at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from raypipe.errors import InputError
from raypipe.models.encoder import encoder_vectors
from tests.tiny_models import tiny_tokenizer

WORDS = ["febbre", "dispnea", "dolore", "tosse"]


@pytest.mark.parametrize("pools", [True, False])
def test_words_are_encoded_alone(pools: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = BertModel(BertConfig(vocab_size=400, **settings), add_pooling_layer=pools).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    together = encoder_vectors(str(tmp_path), WORDS)
    assert together.shape == (4, 16)
    alone = np.concatenate([encoder_vectors(str(tmp_path), [word]) for word in WORDS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="safetensors"):
        encoder_vectors(str(tmp_path), WORDS)
