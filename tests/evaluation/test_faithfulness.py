"""Faithfulness on a model whose deciding word is known, and the arithmetic on its own."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pytest

from raypipe.attribution.engine import AttributionEngine
from raypipe.attribution.occlusion import without
from raypipe.errors import Code
from raypipe.evaluation import faithfulness
from raypipe.evaluation.faithfulness import MEASURES, SHARES, faithfulness_table, items_of, keep_probabilities, measure
from raypipe.models.prompts import PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings.config import Attribution, Prompt
from tests.attribution.cases import decoder_of, notes_of
from tests.attribution.test_contract import planted


class Encoder:
    """Hands out notes that are tokens already."""

    def __init__(self, notes: list[Any]) -> None:
        self.notes = {note.note_id: note for note in notes}

    def encode(self, note_id: str, text: str, task_ids: Any) -> Any:
        return self.notes[note_id]


def table() -> list[dict[str, Any]]:
    loaded, notes, _ = planted()
    text = " ".join("x" * 12)  # twelve words of one character
    offsets = np.stack([np.arange(0, 24, 2), np.arange(1, 25, 2)], axis=1).astype(np.int32)
    from dataclasses import replace

    encoder: Any = Encoder([replace(note, offsets_N2=offsets) for note in notes])
    variants = {
        "occlusion": Attribution(method="occlusion"),
        "gradient": Attribution(layer="all", reduction="l2"),
        "kv": Attribution(method="kv_direct"),
    }
    rows = [(note.note_id, text, ("sign",)) for note in notes[:24]]
    return faithfulness_table(loaded, encoder, rows, variants, n_bootstrap=200)


def test_finds_the_method_that_finds_the_word() -> None:
    rows = table()
    by_name = {(row["variant"], row["layer"]): row for row in rows}
    assert {name for name, _ in by_name} == {"random", "occlusion", "gradient", "kv"}
    assert {layer for name, layer in by_name if name == "gradient"} == {0, 1, 2, 3}
    oracle, random = by_name["occlusion", 0], by_name["random", 0]
    assert oracle["vs_random_low"] > 0
    assert oracle["comprehensiveness"] > random["comprehensiveness"]
    assert oracle["sufficiency"] < random["sufficiency"]
    assert oracle["reversed"] < oracle["comprehensiveness"]
    assert oracle["soft_nc"] > random["soft_nc"]
    assert random["vs_random"] == 0
    best = rows[0]
    assert best["vs_best"] == best["vs_best_low"] == best["vs_best_high"] == 0
    for row in rows[1:]:
        assert row["vs_best"] == pytest.approx(row["comprehensiveness"] - best["comprehensiveness"], abs=1e-6)
        assert row["vs_best_low"] <= row["vs_best"] <= min(0, row["vs_best_high"])
    assert random["vs_best_high"] < 0
    assert [row["comprehensiveness"] for row in rows] == sorted((r["comprehensiveness"] for r in rows), reverse=True)
    for row in rows:
        assert row["n_notes"] == 24
        assert all(np.isfinite(row[measure]) for measure in MEASURES)


def test_same_seed_same_table() -> None:
    plain, again = ([{k: v for k, v in row.items() if k != "seconds"} for row in table()] for _ in range(2))
    assert plain == again


@pytest.mark.parametrize("relevance", [[1, 2, 3, 4, 5], [0, 0, 0, 0, 9], [0, 0, 0, 0, 0], [1e-9, 1, 1e9, 0, 2]])
def test_all_methods_keep_the_same_share(relevance: list[float]) -> None:
    kept = keep_probabilities(np.asarray(relevance, np.float32))
    assert kept.mean() == pytest.approx(0.2, abs=1e-3)
    assert (kept >= 0).all()
    assert (kept <= 1).all()
    assert kept[np.argmax(relevance)] == kept.max()


def test_words_of_real_text_with_a_real_encoder() -> None:
    decoder = decoder_of()
    encoder = PromptEncoder(
        decoder.loaded.tokenizer, Prompt(max_tokens=64), [Task("t", "binary", "tosse?", ("y", "n"), ("si", "no"))]
    )
    text = "Nega tosse, febbre e dolore."
    note = encoder.encode("n", text, ["t"])
    settings = Attribution()
    ((item,),) = items_of(decoder, [note], [text], settings)
    assert len(item.words_W2) == 5
    removed = without(item.note, np.flatnonzero(item.word_of_token_N == 1).tolist())
    kept = decoder.loaded.tokenizer.decode(removed.prefix_ids[note.note_start :])
    assert "tosse" not in kept
    assert "febbre" in kept
    (result,) = measure(decoder, [item], [np.asarray([5, 4, 3, 2, 1], np.float32)], settings)
    assert result.comprehensiveness_S.shape == (len(SHARES),)
    assert 0 < item.p < 1


@pytest.mark.parametrize("keep", ["head", "tail"])
def test_words_that_were_cut_off_are_none_of_the_note(keep: Literal["head", "tail"]) -> None:
    decoder = decoder_of()
    task = Task("t", "binary", "tosse?", ("y", "n"), ("si", "no"))
    encoder = PromptEncoder(decoder.loaded.tokenizer, Prompt(max_tokens=48, keep=keep), [task])
    text = " ".join(["febbre", *["dolore"] * 60, "tosse"])
    note = encoder.encode("n", text, ["t"])
    assert note.n_cut_tokens > 0
    ((item,),) = items_of(decoder, [note], [text], Attribution())
    assert set(item.word_of_token_N.tolist()) - {-1} == set(range(len(item.words_W2)))
    kept = [text[start:end] for start, end in item.words_W2]
    assert (kept[0], kept[-1]) == (("febbre", "dolore") if keep == "head" else ("dolore", "tosse"))
    assert len(kept) < 60
    (result,) = measure(decoder, [item], [np.arange(len(kept), dtype=np.float32)], Attribution())
    assert len(set(result.reversed_S.tolist())) > 1  # the least relevant words are in the prompt, too


def test_a_method_that_fails_on_every_note_is_left_out_and_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(AttributionEngine):
        def attribute(self, notes: Any) -> Any:
            return [Code.MODEL] * len(notes) if self.config.method == "kv_direct" else super().attribute(notes)

    whole = table()
    monkeypatch.setattr(faithfulness, "AttributionEngine", Failing)
    measured = {(row["variant"], row["layer"]): row["comprehensiveness"] for row in table()}
    assert measured == {
        (row["variant"], row["layer"]): row["comprehensiveness"] for row in whole if row["variant"] != "kv"
    }


def test_notes_without_words_are_left_out() -> None:
    decoder = decoder_of()
    (note,) = notes_of(1, 1)
    assert items_of(decoder, [note], ["... ---"], Attribution()) == [[]]


def test_a_measure_that_no_note_defines_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(faithfulness._defined_mean(np.full(3, np.nan, np.float32)))
    assert faithfulness._defined_mean(np.asarray([np.nan, 1.0, 3.0], np.float32)) == 2.0
