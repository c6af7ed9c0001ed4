"""The loop's promises: however a step is cut, over workers, micro-batches or interruptions, the result is the same."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raypipe.errors import InputError
from raypipe.masking import Masker, Renderer
from raypipe.models import tree
from raypipe.models.prompts import EncodedNote, PromptEncoder, Question
from raypipe.runs.folder import write_json
from raypipe.settings.config import Lora, Masking, Prompt
from raypipe.training import checkpoint, examples, loop, lora, schedule, supervised, throughput
from raypipe.training.loss import WeightedLoss, batch_of
from raypipe.words import word_spans
from tests.masking.cases import SENTENCES
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.cases import (
    PAD,
    Stopped,
    distance,
    fitted,
    metrics_of,
    rows_of_many_lengths,
    settings,
    stop_after,
)


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "a", settings())
    assert distance(whole, fitted(tmp_path / "b", settings(micro_batch_tokens=45))) < 2e-5
    assert distance(whole, tiny_model("llama").state_dict()) > 1e-3  # it did learn


def test_bfloat16_is_autocast_over_float32_weights(tmp_path: Path, bfloat16_products: None) -> None:
    exact, rounded = (fitted(tmp_path / p, settings(precision=p)) for p in ("float32", "bfloat16"))
    assert {weight.dtype for weight in rounded.values()} == {torch.float32}
    assert distance(exact, rounded) > 0  # it was on
    losses = [[line["loss"] for line in metrics_of(tmp_path / p)] for p in ("float32", "bfloat16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_resumed_equals_straight(tmp_path: Path) -> None:
    """Stopped by an exception after step 5, its checkpoint of step 4, with dropout on; 0.0 apart."""
    training = settings(checkpoint_every=4, dropout=0.2)
    straight = fitted(tmp_path / "straight", training)
    with pytest.raises(Stopped):
        fitted(tmp_path / "cut", training, on_step=stop_after(5))
    resumed = fitted(tmp_path / "cut", training)
    assert distance(straight, resumed) == 0.0
    assert metrics_of(tmp_path / "cut") == metrics_of(tmp_path / "straight")


def test_a_row_is_decoded_once_a_step_and_none_of_the_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    row = examples.Examples.row
    monkeypatch.setattr(examples.Examples, "row", lambda own, index: (decoded.append(index), row(own, index))[1])
    with pytest.raises(Stopped):
        fitted(tmp_path, settings(checkpoint_every=4), on_step=stop_after(5))
    assert len(decoded) == 6 * 8
    decoded.clear()
    fitted(tmp_path, settings(checkpoint_every=4))
    assert len(decoded) == 2 * 8, "two steps were left"


def test_a_curve_that_lost_lines_goes_on_with_the_right_steps(tmp_path: Path) -> None:
    """A kill cut the last line short, and an earlier one has taken the first steps."""
    training = settings(checkpoint_every=4)
    with pytest.raises(Stopped):
        fitted(tmp_path, training, on_step=stop_after(5))
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[2:]) + '{"step": 6, "lo')
    fitted(tmp_path, training)
    steps = [line["step"] for line in metrics_of(tmp_path)]
    assert steps == list(range(3, steps[-1] + 1))


def test_outcome_counts_the_attempts_before(tmp_path: Path) -> None:
    data, training = rows_of_many_lengths(), settings(checkpoint_every=4)
    with pytest.raises(Stopped):
        fitted(tmp_path, training, on_step=stop_after(5))
    state = tmp_path / "checkpoint/state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"seconds": 1000.0}))
    model = tiny_model("llama")
    outcome = loop.fit(model, PAD, data, training, tmp_path)
    two_epochs = throughput.work_of(data, np.tile(np.arange(len(data)), 2))
    assert outcome.seconds > 1000
    targets = sum((data.row(i)[1] > 0).sum() for i in range(len(data)))
    assert (outcome.tokens, outcome.target_tokens) == (2 * data.length.sum(), 2 * targets)
    assert outcome.flops == throughput.training_flops(model, two_epochs)
    assert outcome.peak_fraction is None  # on a CPU


def test_crash_while_saving_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: Any) -> None:
    training = settings(checkpoint_every=2)
    straight = fitted(tmp_path / "straight", training)

    def crash(path: Path, value: dict[str, Any]) -> None:
        if value["step"] == 4:
            raise Stopped
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_json", crash)
        with pytest.raises(Stopped):
            fitted(tmp_path / "cut", training)
    assert json.loads((tmp_path / "cut/checkpoint/state.json").read_text())["step"] == 2
    assert distance(straight, fitted(tmp_path / "cut", training)) == 0.0


def test_loss_is_the_weighted_mean(tmp_path: Path) -> None:
    """Against transformers' own logits, on rows that are plain sequences."""
    model, data = tiny_model("qwen2"), rows_of_many_lengths(2, seed=5)
    plain = examples.from_rows(
        [{"input_ids": data.row(i)[0], "loss_weight": data.row(i)[1], "branch": data.row(i)[2] * 0} for i in range(2)]
    )
    total, weights = 0.0, 0.0
    for i in range(2):
        ids, weight, _ = plain.row(i)
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor(ids[None]).long()).logits[0].log_softmax(-1)
        total -= sum(float(log_p[t - 1, ids[t]]) * float(weight[t]) for t in range(1, len(ids)))
        weights += float(weight.sum())
    assert loop.mean_loss(WeightedLoss(model), PAD, plain, settings()) == pytest.approx(total / weights, rel=1e-5)


@pytest.mark.parametrize("prompt_loss", [0.0, 1.0])
def test_labels_of_the_prompt_matter_only_with_prompt_loss(prompt_loss: float, monkeypatch: Any) -> None:
    """From the rendered example on. Tokens are input and label in one, so the model's view of the input is
    held while the labels change: those of the head and of the note, or (as a control) those of the answer."""
    (row, *_) = masked_example(prompt_loss)
    (of_answer, *_) = masked_example(0.0)
    in_prompt = np.asarray(of_answer["loss_weight"]) == 0
    assert row["input_ids"] == of_answer["input_ids"]
    assert in_prompt.sum() > 20
    core = WeightedLoss(tiny_model("llama"))

    def loss(ids: Any) -> float:
        return loop.mean_loss(core, PAD, examples.from_rows([{**row, "input_ids": ids}]), settings())

    view = tree.hidden_states
    seen, _ = batch_of(examples.from_rows([row]), np.array([0]), PAD, torch.device("cpu"))
    monkeypatch.setattr(tree, "hidden_states", lambda model, trees: view(model, seen))
    ids = np.asarray(row["input_ids"])
    others = (ids + 7) % 300
    assert (loss(np.where(in_prompt, others, ids)) == loss(ids)) == (prompt_loss == 0)
    assert loss(np.where(in_prompt, ids, others)) != loss(ids)


def masked_example(prompt_loss: float) -> list[dict[str, Any]]:
    """Training rows of a note with two hidden spans."""
    text = " ".join(SENTENCES)
    masking = Masking(strategy="random_word", prompt_loss=prompt_loss)
    (plan, *_) = Masker({"a": masking}, 0, None).plans("n", text, word_spans(text), [None], None)
    encoder = PromptEncoder(tiny_tokenizer(), Prompt(), [])
    return [example.row() for example in Renderer(encoder, masking, max_tokens=200).examples(text, plan)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize(
    "adapters", [None, Lora(rank=4, dropout=0.0), Lora(rank=4, dropout=0.0, first_block=3)], ids=["full", "all", "last"]
)
def test_model_flops_are_those_that_torch_counts(family: str, adapters: Lora | None) -> None:
    """Rows of one length, so that there is no padding; the head runs on the weighted half of the tokens."""
    model = tiny_model(family)
    adapted = lora.add(model, adapters).get_base_model() if adapters else model
    adapted.set_attn_implementation("eager")  # torch counts its products one by one
    length, rng = 24, np.random.default_rng(0)
    weight = [0.0, 1.0] * (length // 2)
    rows = [{"input_ids": rng.integers(3, 300, length), "loss_weight": weight, "branch": [0] * length}] * 3
    data = examples.from_rows(rows)
    with FlopCounterMode(display=False) as counted:
        WeightedLoss(adapted)(*batch_of(data, np.arange(3), PAD, torch.device("cpu"))).backward()
    work = throughput.work_of(data, np.arange(3))
    assert (work.tokens, work.targets) == (3 * length, 3 * length // 2)
    # the input of the first block with adapters needs no gradient; we count it
    exact = 1e-6 if adapters is None else 0.08 if adapters.first_block else 0.04
    assert throughput.training_flops(adapted, work) == pytest.approx(counted.get_total_flops(), rel=exact)


def test_lora_trains_adapters_only_and_merges(tmp_path: Path) -> None:
    base = tiny_model("llama")
    adapted = lora.add(tiny_model("llama"), Lora(rank=4, alpha=8, dropout=0.0))
    loop.fit(adapted.get_base_model(), PAD, rows_of_many_lengths(), settings(learning_rate=1e-2), tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = adapted(input_ids=ids).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-4, rtol=1e-3)
        assert (merged(input_ids=ids).logits - base(input_ids=ids).logits).abs().max() > 1e-3
    assert torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)


def test_schedule_uses_every_row_once_per_epoch_and_each_draw_in_turn() -> None:
    length = np.arange(1, 31)
    draw = np.repeat([0, 1, 2], 10).astype(np.int16)
    steps = schedule.steps(length, draw, settings(epochs=4, batch_rows=4))
    epochs = [np.sort(np.concatenate(steps[i : i + 3])).tolist() for i in range(0, 12, 3)]
    assert epochs == [list(range(10)), list(range(10, 20)), list(range(20, 30)), list(range(10))]
    half = schedule.steps(length, draw * 0, settings(epochs=0.5, batch_rows=3))
    assert len(half) == 5
    cut = schedule.epochs(length, draw * 0, settings(epochs=9, max_steps=15, batch_rows=3))
    assert [(over, len(taken)) for over, taken in cut] == [(1.0, 10), (1.5, 5)]
    first, again = (schedule.steps(length, draw, settings(seed=s)) for s in (1, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(("share", "n_others"), [(0.0, 0), (0.25, 2), (0.5, 6), (0.75, 18)])
def test_mixed_rows_are_a_share_of_every_draw(share: float, n_others: int) -> None:
    rows, others = rows_of_many_lengths(12, seed=0), rows_of_many_lengths(5, seed=1)
    rows = dataclasses.replace(rows, draw=np.repeat(np.arange(2, dtype=np.int16), 6))
    mixed = examples.mixed(rows, others, share)
    assert np.bincount(mixed.draw).tolist() == [6 + n_others, 6 + n_others]
    for index in range(len(mixed)):
        source, at = (rows, index) if index < 12 else (others, (index - 12) % 5)
        for column, original in zip(mixed.row(index), source.row(at), strict=True):
            np.testing.assert_array_equal(column, original)


@pytest.mark.parametrize("n_rows", [1, 2, 7, 30])
def test_workers_have_equally_many_passes_and_every_row_once(n_rows: int) -> None:
    rows, length = np.arange(n_rows), np.random.default_rng(0).integers(5, 50, n_rows)
    passes = [schedule.passes_of(rows, length, rank, 3, max_tokens=60) for rank in range(3)]
    assert len({len(batches) for batches in passes}) == 1
    assert sorted(np.concatenate([batch for batches in passes for batch in batches])) == rows.tolist()


@pytest.mark.parametrize(("n_rows", "device"), [(4000, "cuda"), (4000, "cpu"), (128, "cpu")])
def test_there_is_little_padding(n_rows: int, device: str) -> None:
    rng = np.random.default_rng(0)
    length = np.clip(rng.lognormal(5, 0.9, n_rows), 8, 2000).astype(np.int64)
    steps = schedule.steps(length, np.zeros(n_rows, np.int16), settings(epochs=1, batch_rows=16))
    batches = [b for step in steps for b in schedule.passes_of(step, length, 0, 1, 4096, device)]
    padded = [len(batch) * int(length[batch].max()) for batch in batches]
    assert length.sum() / sum(padded) > 0.9
    most = schedule.MAX_PADDING[device]
    assert all(n <= 4096 and n - length[batch].sum() <= most for n, batch in zip(padded, batches, strict=True))
    assert sorted(np.concatenate(batches)) == list(range(n_rows))


@pytest.mark.parametrize("n_rows", [100, 300, 1000])
def test_few_rows_are_not_in_the_same_batches_in_every_epoch(n_rows: int) -> None:
    """Nor with every seed; and the incomplete batch, whose rows weigh more, is not that of the longest notes."""
    length = np.random.default_rng(0).integers(60, 400, n_rows)
    of = [
        schedule.steps(length, np.zeros(n_rows, np.int16), settings(epochs=2, batch_rows=16, seed=seed))
        for seed in range(20)
    ]
    n_steps = len(of[0]) // 2

    def pairs(steps: list[schedule.Indices]) -> set[tuple[int, int]]:
        return {(int(a), int(b)) for step in steps for a in step for b in step if a < b}

    epochs = [pairs(of[0][:n_steps]), pairs(of[0][n_steps:]), pairs(of[1][:n_steps])]
    by_chance = 15 / (n_rows - 1)
    for other in epochs[1:]:
        assert len(epochs[0] & other) / len(epochs[0]) < by_chance + 0.15
    incomplete = [length[step].mean() for steps in of for step in steps if len(step) < 16]
    assert np.mean(incomplete) == pytest.approx(length.mean(), rel=0.15)


def test_learning_rate_warms_up_and_falls() -> None:
    factors = [schedule.learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[-1] < 1e-3
    assert math.isclose(factors[55], 0.5, abs_tol=0.01)


def test_supervised_rows_put_loss_on_answers_only() -> None:
    questions = (
        Question("a", (20, 21), ((30,), (31, 32))),
        Question("b", (22,), ((30,), (31,))),
        Question("c", (9,), ((1,),)),
    )
    note = EncodedNote("n", (1, 5, 6), 1, np.zeros((2, 2), np.int32), 0, questions)
    (row,) = supervised.training_rows(note, {"a": 1, "b": 0}, eos_id=2)
    assert row["input_ids"] == [1, 5, 6, 20, 21, 31, 32, 2, 22, 30, 2]
    assert row["loss_weight"] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1]
    assert row["branch"] == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]


def test_the_last_step_of_an_epoch_says_so(tmp_path: Path) -> None:
    fitted(tmp_path, settings(epochs=100, max_steps=4))
    assert [line.get("epoch") for line in metrics_of(tmp_path)] == [None, None, 1.0, pytest.approx(4 / 3)]


def test_a_training_that_diverges_leaves_no_student(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        next(model.parameters())[5:].fill_(math.nan)
    with pytest.raises(InputError, match=r"the training diverged at step \d of 6: lower its learning_rate"):
        loop.fit(model, PAD, rows_of_many_lengths(), settings(), tmp_path)
    with pytest.raises(InputError, match="the training diverged at step"):
        fitted(tmp_path, settings())
    assert not (tmp_path / "metrics.jsonl").exists(), "nothing was tried again"


def test_every_step_says_its_learning_rate(tmp_path):
    training = settings(warmup=0.5)
    fitted(tmp_path, training)
    rates = [line["learning_rate"] for line in metrics_of(tmp_path)]
    factors = [schedule.learning_rate_factor(step, len(rates), 0.5) for step in range(len(rates))]
    assert rates == [training.learning_rate * factor for factor in factors]
    assert len(set(rates)) > 2


@pytest.mark.parametrize("is_on", [False, True])
def test_activation_checkpointing_warns_of_nothing(is_on):
    model = tiny_model("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop._checkpoint_activations(model, settings(gradient_checkpointing=is_on))
        loop._checkpoint_activations(model, settings())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
