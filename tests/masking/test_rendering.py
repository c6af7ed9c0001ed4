"""Tokens of masked examples: exact text, the right targets, weights, windows and sentinels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from raypipe import rows
from raypipe.errors import Code, InputError, RowError
from raypipe.masking import Masker, Renderer
from raypipe.masking.rendering import Example
from raypipe.models.pieces import PieceEncoder
from raypipe.models.prompts import PromptEncoder
from raypipe.models.sentinels import Sentinels, choose_sentinels, contains_sentinel
from raypipe.notes.tasks import Task
from raypipe.settings.config import Masking, Prompt
from raypipe.words import word_spans
from tests.masking.cases import NOTES, SENTENCES, STATISTICS, fill, masking, relevance
from tests.tiny_models import tiny_tokenizer

TASKS = [Task("t", "binary", "Ha dolore toracico?", ("si", "no"), ("si", "no"))]
RESERVED = tuple(f"<|reserved_special_token_{n}|>" for n in range(100, 120))
TEXT = " ".join(SENTENCES)
PLAIN = Sentinels()


def encoder(chat: bool = False, reserved: bool = False) -> PromptEncoder:
    tokenizer = tiny_tokenizer(chat)
    if reserved:
        tokenizer.add_special_tokens({"additional_special_tokens": list(RESERVED)})
    return PromptEncoder(tokenizer, Prompt(), TASKS)


def plan(settings_: Masking, text: str = TEXT, seed: int = 0) -> dict[str, Any]:
    return Masker({"a": settings_}, 0, STATISTICS).plans("n", text, word_spans(text), ["t"], relevance(text, seed))[0]


def parts(tokenizer: Any, example: Example) -> tuple[str, str]:
    """Everything before the answer, and the answer without EOS; of an example with prompt_loss 0."""
    row = example.row()
    first = next(i for i, weight in enumerate(row["loss_weight"]) if weight)
    assert row["input_ids"][-1] == tokenizer.eos_token_id
    assert all(row["loss_weight"][first:])
    return tokenizer.decode(row["input_ids"][1:first]), tokenizer.decode(row["input_ids"][first:-1])


@settings(deadline=None, max_examples=60)
@given(text=NOTES, form=st.sampled_from(["single", "multi"]), reserved=st.booleans(), seed=st.integers(0, 9))
def test_tokens_say_what_the_note_says(text: str, form: Any, reserved: bool, seed: int) -> None:
    assume(not contains_sentinel(text))
    enc, sentinels = ENCODERS[reserved], Sentinels(RESERVED if reserved else ())
    options = Masking(format=form, max_span_words=None)
    try:
        made = plan(options, text, seed)
    except RowError:
        return
    for example in Renderer(enc, options, 100_000, sentinels.reserved).examples(text, made):
        before, answer = parts(enc.tokenizer, example)
        assert fill(before.removesuffix("\n"), answer, sentinels) == text


@pytest.mark.parametrize("phi_P2", [None, np.zeros((0, 2), np.int32)], ids=["fast", "with offsets"])
def test_pieces_are_what_transformers_makes_of_them(phi_P2: Any) -> None:
    """Whatever the tokenizer was asked last: to cut, to fill up, or to read special tokens in a text as such."""
    tokenizer = ENCODERS[True].tokenizer
    pieces = PieceEncoder(tokenizer)
    texts = [TEXT, f" {RESERVED[0]}{tokenizer.eos_token} ", "è\u0301 \U0001f600\n"]
    expected = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tokenizer(texts, truncation=True, max_length=3, padding="max_length", split_special_tokens=False)
    assert [piece.ids for piece in pieces.encode(texts, [0, 0, 0], 1.0, phi_P2)] == expected
    assert len(expected[1]) > 4, "imitated special tokens are plain text"


ENCODERS = {reserved: encoder(reserved=reserved) for reserved in (False, True)}


def test_weights_of_the_parts() -> None:
    """Span text, target sentinels and EOS 1; the note lambda; its sentinels, head, question and BOS 0."""
    enc = encoder(chat=True, reserved=True)
    options = Masking(prompt_loss=0.25, condition="item", instruction="Riempi.", ratio=0.3)
    row = Renderer(enc, options, 1000, RESERVED).examples(TEXT, plan(options))[0].row()
    text_of = {
        w: [i for i, v in zip(row["input_ids"], row["loss_weight"], strict=True) if v == w] for w in (0, 0.25, 1)
    }
    context, note, answer = (enc.tokenizer.decode(text_of[w]) for w in (0, 0.25, 1))
    for written in ("Riempi.", "Ha dolore toracico?", "<|user|>", "<|assistant|>", RESERVED[0]):
        assert written in context
        assert written not in note
    assert not contains_sentinel(note)
    assert answer.startswith(RESERVED[0])
    assert answer.endswith("</s>")
    assert set(row["branch"]) == {0}
    assert rows.table([row], rows.TRAINING).schema == rows.TRAINING


def test_kinds_weigh_what_they_are_told() -> None:
    options = masking("mslm")
    made = plan(options)
    row = Renderer(encoder(), options, 1000, kind_weights=(1.0, 1.5, 0.5)).examples(TEXT, made)[0].row()
    assert {1, 2} == set(made["kind"])
    assert {0.0, 0.5, 1.0, 1.5} == set(row["loss_weight"])
    counted = options.model_copy(update={"mslm": options.mslm.model_copy(update={"count_factor": True})})
    scaled = Renderer(encoder(), counted, 1000, kind_weights=(1.0, 1.5, 0.5)).examples(TEXT, made)[0].row()
    n_hidden = sum(weight in (0.5, 1.5) for weight in row["loss_weight"])
    assert scaled["loss_weight"] == pytest.approx([weight * (1 + n_hidden) for weight in row["loss_weight"]])


@pytest.mark.parametrize("strategy", ["relevance", "cpt", "cpt_packed"])
def test_protected_text_is_no_target_even_with_prompt_loss(strategy: str) -> None:
    loss = {} if strategy.startswith("cpt") else {"prompt_loss": 1}
    options = Masking(strategy=strategy, phi_patterns=("furosemide", r"mellito tipo \d"), **loss)
    row = Renderer(encoder(), options, 1000).examples(TEXT, plan(options))[0].row()
    trained = encoder().tokenizer.decode(
        [i for i, weight in zip(row["input_ids"], row["loss_weight"], strict=True) if weight]
    )
    assert "furosemide" not in trained
    assert "mellito" not in trained
    assert "ramipril" in trained


def test_text_that_imitates_special_tokens_stays_text() -> None:
    text = "Dolore </s><s><|assistant|> toracico <pad> forte"
    enc, options = encoder(chat=True), Masking(ratio=0.4)
    row = Renderer(enc, options, 1000).examples(text, plan(options, text))[0].row()
    assert row["input_ids"].count(enc.tokenizer.eos_token_id) == 1
    assert enc.tokenizer.pad_token_id not in row["input_ids"]


@pytest.mark.parametrize("form", ["single", "multi"])
@pytest.mark.parametrize("room", [60, 90, 200])
def test_windows_keep_their_spans(form: Any, room: int) -> None:
    enc, options = encoder(), Masking(format=form)
    text = TEXT * 4
    made = plan(options, text)
    examples = Renderer(enc, options, room).examples(text, made)
    pairs = [parts(enc.tokenizer, example) for example in examples]
    assert all(len(example.input_ids) <= room for example in examples)
    assert all(fill(before.removesuffix("\n"), answer, PLAIN) in text for before, answer in pairs)
    assert [before.count("<mask_") for before, _ in pairs] == [example.n_spans for example in examples]
    assert sum(example.n_spans for example in examples) == len(made["start"])
    assert any(example.n_cut_tokens for example in examples)


def test_a_span_longer_than_the_context_is_dropped() -> None:
    text = "inizio " + "x" * 500 + " fine"
    made = {"start": [7], "end": [507], "kind": [0], "task_id": None}
    assert Renderer(encoder(), Masking(), 64).examples(text, made) == []


def test_no_room_for_a_note() -> None:
    options = Masking(instruction="Riempi le parole nascoste. " * 9)
    with pytest.raises(RowError, match=Code.NO_ROOM.value):
        Renderer(encoder(), options, 40).examples(TEXT, plan(options))


def test_spans_beyond_max_spans_go_to_further_examples() -> None:
    options = Masking(ratio=0.6, max_spans=3)
    made = plan(options)
    examples = Renderer(encoder(), options, 2000).examples(TEXT, made)
    assert len(examples) == -(-len(made["start"]) // 3)


def test_cpt_repeats_the_sequences_and_packed_does_not() -> None:
    names = {"paper": Masking(profile="paper"), "cpt": Masking(profile="paper", strategy="cpt", match_ratio_to="paper")}
    names["packed"] = Masking(strategy="cpt_packed")
    made = {p["arm"]: p for p in Masker(names, 0).plans("n", TEXT, word_spans(TEXT), ["t"], relevance(TEXT, 3))}
    enc = encoder(chat=True)
    out = {arm: Renderer(enc, names[arm], 2000).examples(TEXT, made[arm]) for arm in names}
    assert len(out["cpt"]) == len(out["paper"]) == len(made["paper"]["start"]) > 1
    assert made["cpt"]["n_masked"] == 0
    assert len(out["packed"]) == 1
    note, _ = enc.note_ids(TEXT)
    assert out["packed"][0].input_ids == [enc.tokenizer.bos_token_id, *note, enc.tokenizer.eos_token_id]
    assert sum(out["packed"][0].loss_weight) == len(note) + 1
    short = Renderer(enc, names["packed"], 40).examples(TEXT, made["packed"])
    assert sum(sum(example.loss_weight) for example in short) == len(note) + len(short)


@pytest.mark.skipif(not os.environ.get("RAYPIPE_MODELS"), reason="RAYPIPE_MODELS is not set: no real tokenizers here")
def test_a_real_tokenizer() -> None:
    """SentencePiece ones put a blank before whatever they are given; pieces from mid-text must not get it."""
    tokenizer = AutoTokenizer.from_pretrained(Path(os.environ["RAYPIPE_MODELS"]) / "stories260k")
    enc, options = PromptEncoder(tokenizer, Prompt(), TASKS), Masking(ratio=0.3)
    text = "the cat was red and the little dog ran home to eat"
    before, answer = parts(tokenizer, Renderer(enc, options, 500).examples(text, plan(options, text))[0])
    assert fill(before.strip(" ").removesuffix("\n"), answer.strip(" "), PLAIN).strip() == text


def test_a_tokenizer_that_cannot_write_a_plain_sentinel_is_refused() -> None:
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz "])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    with pytest.raises(InputError, match="cannot write"):
        Renderer(PromptEncoder(tokenizer, Prompt(), TASKS), Masking(), 100)


def test_sentinels_of_a_family() -> None:
    tokenizer = encoder(reserved=True).tokenizer
    assert choose_sentinels(tokenizer, (*RESERVED, "<|reserved_special_token_999|>")).reserved == RESERVED
    assert choose_sentinels(tokenizer, RESERVED, rows_train=False) == PLAIN
    assert choose_sentinels(tokenizer, RESERVED, "plain") == PLAIN
    assert choose_sentinels(tiny_tokenizer(), RESERVED) == PLAIN
    assert choose_sentinels(tokenizer, (), RESERVED[3:5]).reserved == RESERVED[3:5]


def test_a_token_with_another_role_is_no_sentinel() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.add_tokens(["<think>", "<unused1>"], special_tokens=True)
    for token, why in {"<think>": "role", "</s>": "ends", "<absent_reserved>": "not a token"}.items():
        with pytest.raises(InputError, match=why):
            choose_sentinels(tokenizer, (), (token,))
    tokenizer.chat_template += "<unused1>"
    with pytest.raises(InputError, match="chat template"):
        choose_sentinels(tokenizer, (), ("<unused1>",))
    assert choose_sentinels(tokenizer, ("<unused1>",)) == PLAIN
