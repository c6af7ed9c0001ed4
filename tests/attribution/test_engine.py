"""What the engine does when something goes wrong, and how it forms batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.attribution import AttributionEngine, NoteAttribution, gradients
from raypipe.attribution.batches import token_batches
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.scores import values_of
from raypipe.attribution.tfidf import idf_of_notes
from raypipe.errors import Code, InputError
from raypipe.settings.config import Attribution
from tests.attribution.cases import done, engine_of, notes_of, top_overlap, worst_error
from tests.tiny_models import tiny_loaded


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": 40}, ["layer 40", "layers 0..4", "0..2"]),
        ({"layer": 3}, ["layer 3", "0..2", "reduction: l2"]),
        ({"layer": 4, "reduction": "l2"}, ["layer 4", "0..3"]),
        ({"layer": 1.0}, ["layer 4", "0..2"]),
        ({"layer": 4, "method": "kv_direct"}, ["layer 4", "0..3"]),
        ({"method": "gradxinput"}, ["'gradxinput'", "grad_x_activation", "captum:LayerConductance"]),
        ({"method": "captum:Nothing"}, ["captum:LayerConductance"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        engine_of(**settings)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"layer": "all"}, (0, 1, 2)),
        ({"layer": "all", "reduction": "l2"}, (0, 1, 2, 3)),
        ({"layer": "all", "reduction": "auto"}, (0, 1, 2, 3)),
        ({"layer": "all", "method": "attnlrp"}, (0, 1, 2, 3)),
        ({"layer": "all", "method": "occlusion"}, (0,)),
        ({"layer": 0.5, "method": "occlusion"}, (0,)),
        ({"layer": 0.375}, (2,)),
        ({"layer": 0.0}, (0,)),
    ],
)
def test_layers_are_resolved(settings: dict[str, Any], layers: tuple[int, ...]) -> None:
    assert engine_of(**settings).layers == layers


def test_reduction_follows_the_method() -> None:
    notes = notes_of(1, 2)
    for method, wanted in {"grad_x_activation": "l2", "integrated_gradients": "sum"}.items():
        auto, *others = (
            done(engine_of(method=method, reduction=how, layer=1).attribute(notes))[0].relevance_QKN
            for how in ("auto", "l2", "sum")
        )
        same, other = others if wanted == "l2" else reversed(others)
        np.testing.assert_array_equal(auto, same)
        assert np.abs(auto - other).max() > 1e-3


def failing_above(
    limit: int, error: Exception, monkeypatch: pytest.MonkeyPatch, engine: AttributionEngine
) -> list[int]:
    """Make batches of more than `limit` notes fail; returns the sizes that were tried."""
    sizes: list[int] = []
    inner = engine.method.attribute

    def attribute(request: Any, notes: Any) -> list[NoteAttribution]:
        sizes.append(len(notes))
        if len(notes) > limit:
            raise error
        return inner(request, notes)

    monkeypatch.setattr(engine, "method", replace(engine.method, attribute=attribute))
    return sizes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Code.OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), Code.OOM),
        (RuntimeError("shapes"), Code.MODEL),
        (IndexError("index out of range in self"), Code.MODEL),
    ],
)
def test_a_failing_batch_is_halved(error: Exception, code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = notes_of(6, 1)
    expected = done(engine_of().attribute(notes))
    engine = engine_of()
    sizes = failing_above(2, error, monkeypatch, engine)
    results = done(engine.attribute(notes))
    assert sizes[0] == 6
    assert max(sizes[-2:]) <= 2
    for result, right in zip(results, expected, strict=True):
        assert worst_error(result.relevance_QKN, right.relevance_QKN) < 1e-4
    failing_above(0, error, monkeypatch, engine)
    assert engine.attribute(notes) == [code] * 6


def test_one_bad_note_does_not_take_the_others_with_it() -> None:
    notes = notes_of(4, 1)
    notes[2] = replace(notes[2], prefix_ids=(*notes[2].prefix_ids[:-1], 10**6))  # a token the model does not have
    results = engine_of().attribute(notes)
    assert results[2] is Code.MODEL
    assert sum(isinstance(result, NoteAttribution) for result in results) == 3


def test_a_lost_device_ends_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    failing_above(0, torch.AcceleratorError("device-side assert"), monkeypatch, engine)
    with pytest.raises(torch.AcceleratorError):
        engine.attribute(notes_of(2, 1))


def failing(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_nonfinite_in_float32_is_a_dead_letter() -> None:
    loaded = tiny_loaded()
    token = notes_of(4, 1)[3].prefix_ids[-1]
    notes = [note for note in notes_of(4, 1)]
    engine = AttributionEngine(loaded, Attribution())
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[token] = torch.nan
    results = engine.attribute(notes)
    has_it = [token in note.prefix_ids for note in notes]
    assert [result is Code.NONFINITE for result in results] == has_it


def test_nonfinite_in_bfloat16_is_done_again_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(dtype=torch.bfloat16)
    inner = engine.method.attribute

    def attribute(request: Any, notes: Any) -> list[NoteAttribution]:
        return [replace(r, relevance_QKN=r.relevance_QKN * np.nan) for r in inner(request, notes)]

    monkeypatch.setattr(engine, "method", replace(engine.method, attribute=attribute))
    notes = notes_of(3, 2)
    assert engine._float32 is not None
    for result, right in zip(done(engine.attribute(notes)), done(engine._float32.attribute(notes)), strict=True):
        assert worst_error(result.relevance_QKN, right.relevance_QKN) < 1e-4
    engine.__dict__["_float32"] = None  # no memory for the copy
    assert engine.attribute(notes) == [Code.NONFINITE] * 3


def test_a_float32_copy_that_leaves_no_memory_to_try_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lost = engine_of(dtype=torch.bfloat16), engine_of(dtype=torch.bfloat16)
    monkeypatch.setattr(Decoder, "_check_head", failing(torch.OutOfMemoryError("CUDA out of memory")))
    assert len(done(engine.attribute(notes_of(3, 2)))) == 3
    assert engine._float32 is None
    monkeypatch.setattr(Decoder, "_check_head", failing(torch.AcceleratorError("device-side assert")))
    with pytest.raises(torch.AcceleratorError):
        _ = lost._float32


@pytest.mark.parametrize("method", ["integrated_gradients", "attention_mean", "grad_x_activation"])
def test_a_batch_counts_the_note_as_often_as_it_is_computed(method: str) -> None:
    engine = engine_of(method=method, layer=1, reduction="auto" if method == "attention_mean" else "l2")
    notes = notes_of(4, 9)
    engine.batch_tokens = 4 * max(len(note.prefix_ids) for note in notes)
    assert len(engine._batches(notes)) == (1 if method == "grad_x_activation" else 4)


@pytest.mark.parametrize("method", ["grad_x_activation", "kv_direct", "attnlrp", "integrated_gradients"])
def test_bfloat16_agrees_and_settles_borderline_labels(method: str) -> None:
    notes = notes_of(6, 3)
    low, full = (
        done(engine_of(dtype=d, method=method, layer=1, reduction="l2").attribute(notes))
        for d in (torch.bfloat16, torch.float32)
    )
    # the twin is a float32 copy of bfloat16 weights, so the two models differ by rounding of the weights as well
    same = [a == b for x, y in zip(low, full, strict=True) for a, b in zip(x.predicted_Q, y.predicted_Q, strict=True)]
    assert np.mean(same) >= 0.9
    agreeing = [
        top_overlap(x.relevance_QKN[q], y.relevance_QKN[q])
        for x, y in zip(low, full, strict=True)
        for q in range(3)
        if x.predicted_Q[q] == y.predicted_Q[q]
    ]
    assert np.mean(agreeing) > 0.8


def test_a_model_that_cannot_cache_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = notes_of(3, 3)
    expected = done(engine_of().attribute(notes))
    loaded = tiny_loaded()
    forward = loaded.model.model.forward

    def forgets(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("past_key_values", None)
        return forward(*args, **{**kwargs, "use_cache": False})

    monkeypatch.setattr(loaded.model.model, "forward", forgets)
    engine = AttributionEngine(loaded, Attribution(reduction="sum"))
    assert not engine.decoder.can_cache
    assert not gradients.is_shared(engine.decoder, notes)
    for a, b in zip(done(engine.attribute(notes)), expected, strict=True):
        assert worst_error(a.relevance_QKN, b.relevance_QKN) < 1e-4
    with pytest.raises(InputError, match="grad_x_activation"):
        AttributionEngine(loaded, Attribution(method="kv_direct"))


def test_a_head_that_is_not_linear_is_read_by_the_models_own_code() -> None:
    """Soft-capped logits, as in Gemma 2: also of the label columns alone."""
    loaded = tiny_loaded("gemma3_text")
    loaded.model.config.final_logit_softcapping = 2.0
    engine = AttributionEngine(loaded, Attribution())
    (note,) = notes_of(1, 1)
    ids = torch.tensor([[*note.prefix_ids, *note.questions[0].suffix_ids]])
    logits = loaded.model(ids).logits[0, -1, [option[0] for option in note.questions[0].option_ids]]
    top = logits.topk(2).values
    (result,) = done(engine.attribute([note]))
    assert result.margin_Q[0] == pytest.approx((top[0] - top[1]).item(), abs=1e-5)


@pytest.mark.parametrize("name", ["llama, dynamic", "phi3, longrope"])
def test_notes_beyond_the_original_context_get_a_code(name: str) -> None:
    """Their positions would depend on the batch; the others of the batch are done."""
    notes = notes_of(2, 2)
    long = replace(notes[0], prefix_ids=notes[0].prefix_ids * 6)
    results = engine_of(name).attribute([long, notes[1]])
    assert results[0] is Code.MODEL
    assert isinstance(results[1], NoteAttribution)


@pytest.mark.parametrize("missing", ["mlp", "head"])
def test_a_model_unlike_its_family_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    if missing == "mlp":
        for block in loaded.model.model.layers:
            block.ffn = block.mlp
            del block.mlp
        monkeypatch.setattr(type(block), "forward", lambda block, hidden, **_: hidden + block.ffn(hidden))
    else:  # logits that depend on more than the states
        forward = loaded.model.forward

        def shifted(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            out.logits = out.logits + out.logits.shape[1]
            return out

        monkeypatch.setattr(loaded.model, "forward", shifted)
    with pytest.raises(InputError, match="LlamaForCausalLM"):
        AttributionEngine(loaded, Attribution())


def test_batches_hold_the_budget_and_every_note() -> None:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(150), np.log(700 / 150) / 1.645, 4096), 1, 2048).astype(int).tolist()
    batches = token_batches(lengths, 4096)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 4096 for batch in batches)
    assert sum(lengths) / sum(len(batch) * max(lengths[i] for i in batch) for batch in batches) >= 0.93
    assert token_batches([50, 5], 10) == [[0], [1]]
    assert token_batches([], 10) == []


def test_item_mid_max_reads_the_middle_of_the_item() -> None:
    """Not of all that follows the note: a template may say much around the item."""
    decoder = engine_of().decoder
    (note,) = notes_of(1, 1)
    suffix = (*range(20, 31),)
    for item, middle in {(2, 5): 3, (6, 10): 7, (9, 10): 9, None: 5}.items():
        asked = replace(note, questions=(replace(note.questions[0], suffix_ids=suffix, item=item),))
        (values,) = values_of(decoder, [asked], "item_mid_max", 1024)
        ids = torch.tensor([[*note.prefix_ids, *suffix[: middle + 1]]])
        with torch.no_grad():
            expected = decoder.model(input_ids=ids).logits[0, -1].max()
        assert values.z_Q[0] == pytest.approx(expected.item(), rel=1e-4)


def test_tfidf_knows_the_corpus_it_is_given() -> None:
    notes = notes_of(4, 1)
    idf_V = idf_of_notes([note.prefix_ids[note.note_start :] for note in notes], 384)
    engine = AttributionEngine(tiny_loaded(), Attribution(method="tfidf"), idf_V=idf_V)
    (result,) = done(engine.attribute(notes[:1]))
    ids = notes[0].prefix_ids[notes[0].note_start :]
    assert result.relevance_QKN[0, 0] == pytest.approx([ids.count(t) * idf_V[t] for t in ids])


def test_tfidf_without_a_corpus_is_refused() -> None:
    with pytest.raises(InputError, match="document frequencies"):
        AttributionEngine(tiny_loaded(), Attribution(method="tfidf"))


@pytest.mark.parametrize("size", [1, 2])
def test_occlusion_deletes_windows_of_whole_words_and_no_punctuation(size: int) -> None:
    """Against scores of notes in which the windows were deleted by hand."""
    engine = engine_of(method="occlusion", window=size)
    (note,) = notes_of(1, 1)
    words = [list(range(a, b)) for a, b in note.tokens_W2.tolist()]
    assert max(map(len, words)) > 1
    (result,) = done(engine.attribute([note]))
    expected = np.zeros(len(note.offsets_N2), np.float32)
    for start in range(0, len(words), size):
        window = sorted(token for word in words[start : start + size] for token in word)
        ids = tuple(t for i, t in enumerate(note.prefix_ids) if i - note.note_start not in window)
        rest = replace(note, prefix_ids=ids, offsets_N2=np.delete(note.offsets_N2, window, axis=0))
        (whole,) = values_of(engine.decoder, [note], "label_margin", 1024)
        (without,) = values_of(engine.decoder, [rest], "label_margin", 1024, [whole.chosen_Q2])
        expected[window] = whole.z_Q - without.z_Q
    np.testing.assert_allclose(result.relevance_QKN[0, 0], expected, atol=1e-5)
