"""States of a note and its questions, in one tree, are those of separate prompts; for every family and layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.evaluation.hidden_states import layers_at, note_states
from raypipe.models import tree
from raypipe.models.prompts import EncodedNote, PromptEncoder, Question
from raypipe.notes.tasks import Task
from raypipe.settings.config import Prompt
from tests.tiny_models import CONFIGS, TEXTS, tiny_loaded

TASKS = [Task(f"t{i}", "binary", f"domanda {i} del caso", ("1", "0"), ("sì", "no")) for i in range(40)]
LAYERS = [0, 2, 4]


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("batch_tokens", [1, 4000])
def test_equal_separate_prompts(family: str, batch_tokens: int) -> None:
    loaded = tiny_loaded(family)
    encoder = PromptEncoder(loaded.tokenizer, Prompt(max_tokens=250, instruction="Leggi."), TASKS)
    asked = [["t1"], [task.id for task in TASKS], ["t3", "t0"]]  # the second needs two rows
    notes = [encoder.encode(str(i), TEXTS[i], tasks) for i, tasks in enumerate(asked)]
    for note, states in zip(notes, note_states(loaded, notes, LAYERS, batch_tokens), strict=True):
        assert states.last_QKD.shape == (len(note.questions), 3, 32)
        for q in {0, len(note.questions) - 1, min(33, len(note.questions) - 1)}:
            alone = _alone(loaded, note, note.questions[q])
            np.testing.assert_allclose(states.last_QKD[q], alone[:, -1], atol=1e-4)
            of_note = alone[:, note.note_start : len(note.prefix_ids)]
            np.testing.assert_allclose(states.mean_KD, of_note.mean(axis=1), atol=1e-4)


def _alone(loaded: object, note: EncodedNote, question: Question) -> np.ndarray:
    """[K, T, D] of the plain prompt."""
    ids = torch.tensor([[*note.prefix_ids, *question.suffix_ids]])
    with torch.no_grad():
        every = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states
    return np.stack([every[layer][0].numpy() for layer in LAYERS])


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_layers_are_embeddings_to_what_the_head_reads(family: str) -> None:
    loaded = tiny_loaded(family)
    ids = np.asarray([5, 6, 7, 8], np.int32)
    trees = tree.collate([(ids, np.zeros(4, np.int32))], 0, torch.device("cpu"))
    with torch.no_grad():
        every = tree.layer_states(loaded.model, trees)
        torch.testing.assert_close(every[-1], tree.hidden_states(loaded.model, trees))
    assert len(every) == 5
    same_token = tree.collate([(ids[[0, 0, 0, 0]], np.zeros(4, np.int32))], 0, torch.device("cpu"))
    first = tree.layer_states(loaded.model, same_token)[0][0]
    if family != "gpt2":  # adds positions to its embeddings
        torch.testing.assert_close(first[0], first[3])


def test_fractions_of_the_depth() -> None:
    assert layers_at("all", 4) == [0, 1, 2, 3, 4]
    assert layers_at((0.5, 1.0, 0.52), 4) == [2, 4]
