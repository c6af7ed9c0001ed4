"""The loop's promises: however a step is cut, over workers, micro-batches or interruptions, the result is the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from raypipe.config import Lora, Training
from raypipe.prompts import EncodedNote, Question
from raypipe.training import examples, loop, schedule, supervised
from raypipe.training.loss import WeightedLoss
from tests.tiny_models import tiny_model

PAD = 0


def _examples(n: int = 24, seed: int = 0) -> examples.Examples:
    """Rows of different lengths, a third of them trees with two branches."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        length = int(rng.integers(6, 40))
        branch = [0] * length
        if i % 3 == 0:
            branch = [0] * (length - 4) + [1, 1, 2, 2]
        weight = rng.choice([0.0, 1.0, 0.5], size=length).astype(float)
        weight[0], weight[-1] = 0.0, 1.0
        rows.append({"input_ids": rng.integers(3, 300, length), "loss_weight": weight, "branch": branch})
    return examples.from_rows(rows)


def _training(**changes: object) -> Training:
    return Training(**{"learning_rate": 1e-3, "epochs": 2, "batch_rows": 8, "seed": 3} | changes)


def _fitted(folder: Path, training: Training, data: examples.Examples | None = None) -> dict[str, torch.Tensor]:
    model = tiny_model("llama")
    loop.fit(model, PAD, data or _examples(), training, folder)
    return model.state_dict()


def _distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    whole = _fitted(tmp_path / "a", _training())
    assert _distance(whole, _fitted(tmp_path / "b", _training(micro_batch_tokens=45))) < 2e-5
    assert _distance(whole, tiny_model("llama").state_dict()) > 1e-3  # it did learn


def _worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    state = _fitted(Path(folder), _training(micro_batch_tokens=60, batch_rows=5))
    if rank == 0:
        torch.distributed.barrier()
        from safetensors.torch import save_file

        save_file({name: value.contiguous().clone() for name, value in state.items()}, f"{folder}/state.safetensors")
    else:
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_workers_equal_one(tmp_path: Path) -> None:
    """24 rows in steps of 5: the last step of an epoch leaves one worker less than the other."""
    from safetensors.torch import load_file

    mp.spawn(_worker, args=(str(tmp_path), 29511), nprocs=2)
    alone = _fitted(tmp_path / "alone", _training(batch_rows=5))
    two = load_file(tmp_path / "state.safetensors")
    assert _distance({name: alone[name] for name in two}, two) < 2e-5


def test_resumed_equals_straight(tmp_path: Path) -> None:
    """Stopped by an exception after step 4, with dropout on; 0.0 apart."""

    class Stop(Exception):
        pass

    def stop(metrics: dict[str, object]) -> None:
        if metrics["step"] == 5:
            raise Stop

    training = _training(checkpoint_every=4, dropout=0.2)
    straight = _fitted(tmp_path / "straight", training)
    with pytest.raises(Stop):
        loop.fit(tiny_model("llama"), PAD, _examples(), training, tmp_path / "cut", on_step=stop)
    resumed = _fitted(tmp_path / "cut", training)
    assert _distance(straight, resumed) == 0.0
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 7))


def test_loss_is_the_weighted_mean(tmp_path: Path) -> None:
    """Against transformers' own logits, on rows that are plain sequences."""
    model, data = tiny_model("qwen2"), _examples(2, seed=5)
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
    assert loop.mean_loss(WeightedLoss(model), PAD, plain, _training()) == pytest.approx(total / weights, rel=1e-5)


def test_lora_trains_adapters_only_and_merges(tmp_path: Path) -> None:
    base = tiny_model("llama")
    adapted = loop.add_lora(tiny_model("llama"), Lora(rank=4, alpha=8, dropout=0.0))
    loop.fit(adapted.get_base_model(), PAD, _examples(), _training(learning_rate=1e-2), tmp_path)
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
    steps = schedule.steps(length, draw, _training(epochs=4, batch_rows=4))
    epochs = [np.sort(np.concatenate(steps[i : i + 3])).tolist() for i in range(0, 12, 3)]
    assert epochs == [list(range(10)), list(range(10, 20)), list(range(20, 30)), list(range(10))]
    half = schedule.steps(length, draw * 0, _training(epochs=0.5, batch_rows=3))
    assert len(half) == 5
    first, again = (schedule.steps(length, draw, _training(seed=s)) for s in (1, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_length_buckets_leave_little_padding() -> None:
    rng = np.random.default_rng(0)
    length = np.clip(rng.lognormal(5, 0.9, 4000), 8, 2000).astype(np.int64)
    steps = schedule.steps(length, np.zeros(4000, np.int16), _training(epochs=1, batch_rows=16))
    batches = [b for step in steps for b in schedule.micro_batches(step, length, 16_384)]
    assert length.sum() / schedule.padded_tokens(batches, length) > 0.9


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
