"""Fast paths against slow references: captum, plain autograd, and each other. Always on note tokens alone: the answer
token is far larger and would hide every error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from transformers import AttentionInterface

from raypipe.attribution import gradients, kv_direct, note_attention, note_cache
from raypipe.attribution.engine import AttributionEngine
from raypipe.attribution.gradients import n_branches
from raypipe.attribution.method import Request
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.words import F32
from tests.attribution.cases import done, engine_of, notes_of, top_overlap, worst_error
from tests.tiny_models import ORIGINAL, VARIANTS

TOLERANCE = 1e-4


def captum_relevance(
    engine: AttributionEngine, notes: list[EncodedNote], side: str, predicted: list[tuple[int, int]], layer: int
) -> list[F32]:
    """Gradient x activation by captum on a padded batch with an attention mask, single-token labels, one question."""
    model, pad = engine.decoder.model, engine.decoder.loaded.tokenizer.pad_token_id
    rows = [[*note.prefix_ids, *note.questions[0].suffix_ids] for note in notes]
    width = max(map(len, rows)) + 3  # padded even where a row is the longest
    fill = [[pad] * (width - len(row)) for row in rows]
    ids = torch.tensor([f + r if side == "left" else r + f for r, f in zip(rows, fill, strict=True)])
    keep = torch.tensor([[0] * len(f) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(f)
                         for r, f in zip(rows, fill, strict=True)])  # fmt: skip
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    last = [width - 1 if side == "left" else len(row) - 1 for row in rows]
    pairs = [[note.questions[0].option_ids[o][0] for o in p] for note, p in zip(notes, predicted, strict=True)]

    def margin(embedded: torch.Tensor) -> torch.Tensor:
        logits = model(inputs_embeds=embedded, attention_mask=keep, position_ids=positions, use_cache=False).logits
        return torch.stack(
            [logits[i, e, a] - logits[i, e, b] for i, (e, (a, b)) in enumerate(zip(last, pairs, strict=True))]
        )

    block = engine.decoder.blocks[layer - 1] if layer else engine.decoder.blocks[0]
    explainer = captum.attr.LayerGradientXActivation(margin, block)
    embedded = model.get_input_embeddings()(ids)
    found = explainer.attribute(embedded, attribute_to_layer_input=layer == 0)
    found_BT = (found[0] if isinstance(found, tuple) else found).detach().sum(-1).numpy()
    starts = [len(f) if side == "left" else 0 for f in fill]
    return [
        row[start + note.note_start : start + len(note.prefix_ids)]
        for row, start, note in zip(found_BT, starts, notes, strict=True)
    ]


def best_two(engine: AttributionEngine, note: EncodedNote) -> tuple[int, int]:
    """The two best options by the model's own full logits."""
    ids = torch.tensor([[*note.prefix_ids, *note.questions[0].suffix_ids]])
    logits = engine.decoder.model(ids).logits[0, -1]
    order = logits[[option[0] for option in note.questions[0].option_ids]].argsort(descending=True).tolist()
    return order[0], order[1]


def plain_prompt(model: Any, blocks: list[Any], ids: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities [T, V] of one prompt by the model's own forward function, and the states [T, D] that enter
    each of its blocks: no batch, no padding, no cache, no tree."""
    entered: list[torch.Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: entered.append(args[0])) for block in blocks]
    embedded = model.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits[0].float()
    for handle in handles:
        handle.remove()
    return logits.log_softmax(-1), entered


def plain_prompts(engine: AttributionEngine, note: EncodedNote, question: int) -> tuple[int, float, F32]:
    """Preferred option, margin, and the norm of gradient x activation [K, N] of a question; each option in a pass of
    its own."""
    decoder, asked = engine.decoder, note.questions[question]
    scores, products = [], []
    for option in asked.option_ids:
        prompt = (*note.prefix_ids, *asked.suffix_ids)
        log_p, entered = plain_prompt(decoder.model, decoder.blocks, (*prompt, *option))
        score = torch.stack([log_p[len(prompt) - 1 + i, token] for i, token in enumerate(option)]).mean()
        gradients = torch.autograd.grad(score, entered)
        every = torch.stack([(h * g)[0, : len(note.prefix_ids)] for h, g in zip(entered, gradients, strict=True)])
        scores.append(score.item())
        products.append(every.detach().numpy())
    best, second = np.argsort(scores)[:-3:-1]
    relevance = np.linalg.norm(products[best] - products[second], axis=-1)[list(engine.layers), note.note_start :]
    return int(best), scores[best] - scores[second], relevance


@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_equals_plain_prompts(name: str) -> None:
    """What every accepted model must do: padded batches, shared notes and labels of several tokens, beyond the
    attention window and the original context, against one unpadded prompt per option through the model's own code."""
    engine = engine_of(name, layer="all", reduction="l2")
    assert engine.decoder.can_cache
    one, many = notes_of(2, 1), notes_of(2, 2, "multi")
    for notes in (one, many):
        lengths = [len(note.prefix_ids) for note in notes]
        assert min(lengths) > ORIGINAL > 8  # tokens; windows have 8
        assert lengths[0] != lengths[1]
        for note, result in zip(notes, done(engine.attribute(notes)), strict=True):
            for question in range(len(note.questions)):
                best, margin, relevance_KN = plain_prompts(engine, note, question)
                assert result.predicted_Q[question] == best
                assert result.margin_Q[question] == pytest.approx(margin, abs=1e-4)
                assert worst_error(result.relevance_QKN[question], relevance_KN) <= TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "family", ["llama", "gemma3_text", "gpt_neox", "qwen2_moe"]
)  # GPT-2's blocks have tuple inputs
def test_equals_captum_on_note_tokens(family: str, side: str) -> None:
    engine = engine_of(family, layer="all")
    notes = notes_of(5, 1)
    chosen = [best_two(engine, note) for note in notes]
    results = done(engine.attribute(notes))
    assert [r.predicted_Q[0] for r in results] == [best for best, _ in chosen]
    overlaps = []
    for index, layer in enumerate(engine.layers):
        for result, expected in zip(results, captum_relevance(engine, notes, side, chosen, layer), strict=True):
            assert worst_error(result.relevance_QKN[0, index], expected) <= TOLERANCE
            overlaps.append(top_overlap(result.relevance_QKN[0, index], expected))
    assert np.mean(overlaps) >= 0.999


@pytest.mark.parametrize("labels", ["single", "multi"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_equals_captum_for_labels_of_any_length(family: str, labels: str) -> None:
    """captum on the same target, also for GPT-2, through the method captum:LayerGradientXActivation."""
    notes = notes_of(2, 2, labels)
    ours = done(engine_of(family, layer="all", target="label_logprob").attribute(notes))
    theirs = done(
        engine_of(family, layer="all", target="label_logprob", method="captum:LayerGradientXActivation").attribute(
            notes
        )
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.predicted_Q == b.predicted_Q
        assert worst_error(a.relevance_QKN, b.relevance_QKN) <= TOLERANCE


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "falcon"])  # falcon: blocks return tuples
def test_integrated_gradients_equal_captum(family: str, layer: int) -> None:
    settings: Any = {"layer": layer, "steps": 6, "baseline": "mean"}
    notes = notes_of(2, 1, "multi")
    ours = done(engine_of(family, method="integrated_gradients", **settings).attribute(notes))
    theirs = done(engine_of(family, method="captum:LayerIntegratedGradients", **settings).attribute(notes))
    for a, b in zip(ours, theirs, strict=True):
        assert worst_error(a.relevance_QKN, b.relevance_QKN) <= TOLERANCE


def test_integrated_gradients_complete() -> None:
    notes = notes_of(3, 1)
    few, many = (
        max(r.error_Q[0] for r in done(engine_of(
            method="integrated_gradients", baseline="mean", steps=steps
        ).attribute(notes)))
        for steps in (2, 64)
    )  # fmt: skip
    assert many < 0.05
    assert many < few


@pytest.mark.parametrize(
    ("family", "labels", "method"),
    [
        ("llama", "single", "grad_x_activation"),
        ("llama", "multi", "grad_x_activation"),
        *((name, "multi", "attnlrp") for name, family in FAMILIES.items() if family.rules is not None),
    ],
)
def test_shared_note_equals_separate_prompts(family: str, labels: str, method: str) -> None:
    engine = engine_of(family, layer="all", method=method, reduction="l2" if labels == "multi" else "sum")
    notes = notes_of(3, 3, labels)  # different lengths: padded on the left when shared
    assert engine.decoder.can_cache
    shared = done(engine.attribute(notes))
    engine.decoder.__dict__["can_cache"] = False  # the plain exact path
    plain = done(engine.attribute(notes))
    for a, b in zip(shared, plain, strict=True):
        assert a.predicted_Q == b.predicted_Q
        assert np.allclose(a.margin_Q, b.margin_Q, atol=1e-5)
        assert np.allclose(a.error_Q, b.error_Q, rtol=1e-2, atol=1e-4)
        assert worst_error(a.relevance_QKN, b.relevance_QKN) <= TOLERANCE
        assert top_overlap(a.relevance_QKN, b.relevance_QKN) >= 0.999


def test_questions_in_several_chunks_and_unequal_numbers() -> None:
    """Few tokens per chunk, and notes that do not all have every question."""
    from dataclasses import replace

    notes = notes_of(3, 5)
    notes[1] = replace(notes[1], questions=notes[1].questions[:2])
    large, small = engine_of(), engine_of(batch_tokens=40)
    for a, b in zip(done(large.attribute(notes)), done(small.attribute(notes)), strict=True):
        assert a.relevance_QKN.shape == b.relevance_QKN.shape
        assert worst_error(a.relevance_QKN, b.relevance_QKN) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_kv_direct_equals_autograd(family: str) -> None:
    """The reference keeps keys and values of the whole prompt inside one graph, but cuts them from the note: the note's
    own cache is a constant, as in the definition."""
    engine, value_only = (
        engine_of(family, method="kv_direct", layer="all"),
        engine_of(family, method="kv_direct_value", layer="all"),
    )
    (note,) = notes_of(1, 1)
    (result,), (values,) = done(engine.attribute([note])), done(value_only.attribute([note]))
    model = engine.decoder.model
    from transformers import DynamicCache

    with torch.no_grad():
        past = model(torch.tensor([note.prefix_ids]), past_key_values=DynamicCache(), use_cache=True).past_key_values
    pairs = [(layer.keys.clone().requires_grad_(), layer.values.clone().requires_grad_()) for layer in past.layers]
    cache = DynamicCache()
    for index, (key, value) in enumerate(pairs):
        cache.update(key, value, index)
    logits = model(torch.tensor([note.questions[0].suffix_ids]), past_key_values=cache).logits[0, -1]
    best, second = best_two(engine, note)
    options = note.questions[0].option_ids
    (logits[options[best][0]] - logits[options[second][0]]).backward()
    both, alone = np.zeros(len(note.prefix_ids), np.float32), np.zeros(len(note.prefix_ids), np.float32)
    for block in reversed(range(engine.decoder.depth)):
        key, value = pairs[block]
        alone += (value * value.grad).detach().sum((0, 1, 3)).numpy()
        both += (value * value.grad + key * key.grad).detach().sum((0, 1, 3)).numpy()
        assert worst_error(result.relevance_QKN[0, block], both[note.note_start :]) <= TOLERANCE
        assert worst_error(values.relevance_QKN[0, block], alone[note.note_start :]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_a_normalisation_hides_are_found(family: str) -> None:
    """Without being told the architecture: only OLMo 2 normalises after its attention and MLP, not before."""
    decoder = engine_of(family).decoder
    depth = decoder.depth
    assert decoder.scale_free_layers == ({depth} if family == "olmo2" else {depth - 1, depth})


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_last_two_layers_say_nothing_by_their_sum(family: str) -> None:
    """Pre-norm: the sum is rounding noise at L-1 (float32 and float64 disagree) and zero at L; the L2 norm is fine at
    L-1."""
    engine = engine_of(family)
    depth = engine.decoder.depth
    assert engine_of(family, layer="all", reduction="l2").layers == tuple(range(depth))
    request = Request(engine.decoder, engine.config, (1, depth - 1), 1024, 0)
    l2 = Request(engine.decoder, engine.config.model_copy(update={"reduction": "l2"}), (1, depth - 1), 1024, 0)
    for note in notes_of(2, 1):
        (summed,), (norms,) = gradients.plain(request, [note]), gradients.plain(l2, [note])
        share = np.abs(summed.relevance_QKN[0]).mean(-1) / norms.relevance_QKN[0].mean(-1)
        assert share[0] > 1e-2
        assert share[1] < 1e-4


@pytest.mark.skipif(not os.environ.get("RAYPIPE_MODELS"), reason="RAYPIPE_MODELS names no folder of trained models")
@pytest.mark.parametrize("name", ["stories260k", "babyllama-char-0.9m"])
def test_trained_models(name: str) -> None:
    """Really trained weights: equal to captum at every valid layer, shared note = separate prompts, and bfloat16 keeps
    most of the top tokens."""
    section = config.Model(path=str(Path(os.environ["RAYPIPE_MODELS"]) / name))
    loaded = loading.load(section)
    tasks = [Task(f"t{i}", "binary", q, ("y", "n"), ("yes", "no")) for i, q in enumerate(("happy", "dog", "rain"))]
    encoder = PromptEncoder(loaded.tokenizer, config.Prompt(max_tokens=160), tasks)
    text = "Once upon a time there was a little dog. The dog was sad, for it had lost its ball in the big garden. "
    notes = [encoder.encode(f"n{i}", text[5 * i :], [task.id for task in tasks]) for i in range(3)]
    engine = AttributionEngine(loaded, config.Attribution(layer="all", reduction="sum"))
    assert engine.layers == tuple(range(engine.decoder.depth - 1))
    ours = done(engine.attribute(notes))
    theirs = done(AttributionEngine(
        loaded, config.Attribution(layer="all", reduction="sum", method="captum:LayerGradientXActivation")
    ).attribute(notes))  # fmt: skip
    overlaps = []
    for a, b in zip(ours, theirs, strict=True):
        assert a.predicted_Q == b.predicted_Q
        assert worst_error(a.relevance_QKN, b.relevance_QKN) <= TOLERANCE
        overlaps.append(top_overlap(a.relevance_QKN, b.relevance_QKN))
    assert np.mean(overlaps) >= 0.999
    low = loading.load(section.model_copy(update={"dtype": "bfloat16"}))
    half = done(AttributionEngine(low, config.Attribution(layer="all", reduction="sum")).attribute(notes))
    kept = [top_overlap(a.relevance_QKN[:, :2], b.relevance_QKN[:, :2]) for a, b in zip(half, ours, strict=True)]
    assert np.mean(kept) > 0.7


def test_a_chunk_has_as_many_branches_as_the_memory_holds() -> None:
    """Options of several tokens: a question has a branch, with a copy of the note's keys and values, for each."""
    decoder, notes = engine_of("llama").decoder, notes_of(2, 6, "multi")
    cache = note_cache.encode(decoder, notes, ())
    width, most = cache.keys_LBHND[0].shape[2], 8
    chunks = list(note_cache.readouts(notes, cache, "label_margin", width * most // 4))
    assert len(notes[0].questions) == 6
    assert all(len(chunk.branches) <= most for chunk in chunks)
    assert sum(len(chunk.branches) for chunk in chunks) == sum(map(n_branches, notes)) > 12


def test_what_a_batch_was_read_from_is_not_kept() -> None:
    """The registry of attention functions outlives every batch."""
    engine = engine_of("llama", method="kv_direct")
    done(engine.attribute(notes_of(3, 2)))
    kept = AttentionInterface()[note_attention.NAME]
    assert kept.args == ((),)


@pytest.mark.parametrize("n_notes", [1, 3])
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])  # all families: test_kv_direct_equals_autograd
def test_effects_without_gradients_of_the_note_equal_those_with(name: str, n_notes: int) -> None:
    """Notes of different lengths (padded on the left), labels of several tokens, every block."""
    decoder = engine_of(name).decoder
    notes = notes_of(n_notes, 2, "multi")
    cache = note_cache.encode(decoder, notes, ())
    (readout,) = note_cache.readouts(notes, cache, "label_margin", 1024)
    fast, slow = (how(decoder, readout, cache, 1) for how in (kv_direct.read_effects, kv_direct.gradient_effects))
    torch.testing.assert_close(fast[0].score_QC, slow[0].score_QC, atol=1e-5, rtol=1e-5)
    for found, expected in zip(fast[1:], slow[1:], strict=True):
        assert found.shape == (decoder.depth - 1, 2 * n_notes, cache.keys_LBHND[0].shape[2])
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
