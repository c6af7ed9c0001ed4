"""What every method promises, for every family: both lists grow by themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.attribution import METHODS, AttributionEngine
from raypipe.attribution.captum_layer import names, settings_of
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, PromptEncoder, Question
from raypipe.notes.tasks import Task
from raypipe.settings import config
from tests.attribution.cases import done, engine_of, notes_of, worst_error
from tests.tiny_models import CONFIGS, tiny_loaded

LAYER = 1
GOOD = [m for m in METHODS if m not in {"random", "tfidf", "attention_mean"}]  # controls need not find anything


def test_every_family_has_a_tiny_model() -> None:
    assert set(CONFIGS) == set(FAMILIES)


# All methods on two families; gradients of all families are compared with plain prompts (test_exact.py), and attention
# weights are read of each kind of attention code.
BATCHES = [(method, family) for method in METHODS for family in ("llama", "gpt2")]
BATCHES += [("attention_mean", family) for family in ("mixtral", "gemma2", "gemma3_text", "falcon", "gptj", "gpt_neox")]


@pytest.mark.parametrize(("method", "family"), BATCHES)
def test_shape_and_independence_of_the_batch(method: str, family: str) -> None:
    engine = engine_of(family, method=method, layer=LAYER, steps=4)
    notes = notes_of(4, 2)
    together = done(engine.attribute(notes))
    alone = done([result for note in notes for result in engine.attribute([note])])
    for note, result, single in zip(notes, together, alone, strict=True):
        assert result.relevance_QKN.shape == (2, 1, len(note.offsets_N2))
        assert result.relevance_QKN.dtype == np.float32
        assert len(result.predicted_Q) == len(result.margin_Q) == len(result.error_Q) == 2
        assert np.isfinite(result.relevance_QKN).all()
        assert (result.margin_Q >= 0).all()
        assert result.predicted_Q == single.predicted_Q
        assert worst_error(result.relevance_QKN, single.relevance_QKN) < 1e-4
        assert np.allclose(result.margin_Q, single.margin_Q, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "labels"), [("label_margin", "multi"), ("label_logprob", "single"), ("item_mid_max", "multi")]
)
@pytest.mark.parametrize("method", METHODS)
def test_targets_and_label_lengths(method: str, labels: str, target: Any) -> None:
    engine = engine_of(method=method, layer=LAYER, steps=3, target=target)
    (result,) = done(engine.attribute(notes_of(1, 2, labels)))
    assert np.isfinite(result.relevance_QKN).all()
    assert np.abs(result.relevance_QKN).max() > 0


@pytest.mark.parametrize("name", [n for n in names() if n != "LayerFeatureAblation"])  # one forward per hidden unit
def test_captum_methods_by_name(name: str) -> None:
    (result,) = done(engine_of(method=f"captum:{name}", layer=LAYER, steps=3).attribute(notes_of(1, 1, "multi")))
    assert np.isfinite(result.relevance_QKN).all()


@pytest.mark.parametrize(("method", "name"), [("gradient_shap", "LayerGradientShap"), ("deeplift", "LayerDeepLift")])
def test_the_settings_of_a_captum_method_are_those_that_captum_takes(method: str, name: str) -> None:
    assert METHODS[method].settings == settings_of(name)


def test_no_question_and_no_note() -> None:
    engine = engine_of()
    assert engine.attribute([]) == []
    (result,) = done(engine.attribute(notes_of(1, 0)))
    assert result.predicted_Q == ()
    assert result.relevance_QKN.shape[:2] == (0, 1)


def test_random_depends_on_note_task_and_seed_only() -> None:
    notes = notes_of(2, 2)
    first, again = (done(engine_of(method="random").attribute(notes)) for _ in range(2))
    assert np.array_equal(first[0].relevance_QKN, again[0].relevance_QKN)
    assert not np.array_equal(first[0].relevance_QKN[0], first[0].relevance_QKN[1])
    other = AttributionEngine(tiny_loaded(), config.Attribution(method="random"), seed=1)
    assert not np.array_equal(first[0].relevance_QKN, done(other.attribute(notes))[0].relevance_QKN)


def test_random_draws_a_number_for_each_word() -> None:
    loaded = tiny_loaded()
    task = Task("t", "binary", "tosse?", ("y", "n"), ("si", "no"))
    encoder = PromptEncoder(loaded.tokenizer, config.Prompt(), [task])
    note = encoder.encode("n", "Pneumotorace iperteso, poi drenaggio.", ["t"])
    assert max(np.diff(note.tokens_W2)) > 1
    (result,) = done(AttributionEngine(loaded, config.Attribution(method="random")).attribute([note]))
    drawn = [set(result.relevance_QKN[0, 0, start:end].tolist()) for start, end in note.tokens_W2]
    assert [len(of_word) for of_word in drawn] == [1] * 4
    assert len(set.union(*drawn)) == 4


@cache
def planted() -> tuple[Loaded, list[EncodedNote], int]:
    """A tiny Llama that has learned which of two words stands in a note, test notes, and where the word stands.

    Every token is a word of its own, so relevance of tokens is relevance of words.
    """
    torch.manual_seed(0)
    loaded = tiny_loaded("llama")
    vocabulary = loaded.tokenizer.get_vocab()
    words = [i for piece, i in sorted(vocabulary.items()) if piece.startswith("Ġ") and piece[1:].isalpha()]
    signs, filler = words[:2], words[2:]
    labels = (vocabulary["a"], vocabulary["b"])
    generator = np.random.default_rng(0)
    question = Question("sign", (vocabulary[":"],), ((labels[0],), (labels[1],)))

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        notes = generator.choice(filler, size=(n, 12))
        answer, place = generator.integers(2, size=n), generator.integers(12, size=n)
        notes[np.arange(n), place] = np.asarray(signs)[answer]
        ids = np.concatenate([np.full((n, 1), vocabulary["<s>"]), notes, np.full((n, 1), vocabulary[":"])], axis=1)
        return torch.tensor(ids), torch.tensor(answer), place

    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.2)  # a usual size to start learning from
    optimiser = torch.optim.AdamW(loaded.model.parameters(), lr=3e-3)
    for _ in range(120):
        ids, answer, _ = draw(64)
        logits = loaded.model(ids).logits[:, -1, list(labels)]
        loss = torch.nn.functional.cross_entropy(logits, answer)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ids, _, place = draw(40)
    offsets = np.stack([np.arange(12), np.arange(1, 13)], axis=1).astype(np.int32)
    words = offsets  # one token each
    notes = [
        EncodedNote(f"n{i}", tuple(row[:-1]), 1, offsets, 0, (question,), words) for i, row in enumerate(ids.tolist())
    ]
    return loaded, notes, place


@pytest.mark.parametrize("method", GOOD)
def test_finds_planted_words(method: str) -> None:
    loaded, notes, place = planted()
    engine = AttributionEngine(loaded, config.Attribution(method=method, layer=0))
    found = [np.abs(r.relevance_QKN[0, 0]).argmax() for r in done(engine.attribute(notes))]
    hits = float(np.mean(np.asarray(found) == place))
    assert hits >= (0.95 if method == "occlusion" else 0.3), hits  # chance: 1/12
