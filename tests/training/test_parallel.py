"""Two worker processes (gloo) equal one: replicated or sharded, however steps are cut, across a restart.

The processes start once, run every case, and leave the weights and metrics of each in a folder.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from raypipe.settings.config import Lora
from raypipe.training import loop, parallel
from raypipe.training.loss import batch_of
from tests.tiny_models import tiny_model
from tests.training.cases import (
    PAD,
    State,
    Stopped,
    distance,
    fitted,
    metrics_of,
    rows_of_many_lengths,
    settings,
    stop_after,
)

SMALL_CLIP = {"clip": 0.01}  # below every step's norm: a wrong norm changes the result
DEV = rows_of_many_lengths(7, seed=9)
# 24 rows in steps of 5: the last step of an epoch leaves one worker less than the other
UNEVEN = settings(batch_rows=5, micro_batch_tokens=60, eval_every=2, **SMALL_CLIP)
ADAPTERS = settings(batch_rows=5, micro_batch_tokens=60, lora=Lora(rank=4, alpha=8, dropout=0.0), learning_rate=1e-2)
RESUMED = settings(checkpoint_every=4, micro_batch_tokens=60)
ONE_ROW_A_PASS = settings(micro_batch_tokens=1)  # 8 rows a step
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddp": (UNEVEN, {"dev": DEV}),
    "fsdp2": (UNEVEN, {"dev": DEV, "sharding": "fsdp2"}),
    "fsdp2_checkpointing": (UNEVEN.model_copy(update={"gradient_checkpointing": True}), {"sharding": "fsdp2"}),
    "fsdp2_lora": (ADAPTERS, {"sharding": "fsdp2"}),
    "accumulated": (ONE_ROW_A_PASS, {}),
}


def _save(folder: Path, state: State) -> None:
    if dist.get_rank() == 0:
        save_file({name: value.clone() for name, value in state.items() if name != "lm_head.weight"}, folder / "result")


def _counted(counts: list[int]) -> Any:
    """`batch_of` that counts its calls."""

    def counting(*arguments: Any) -> Any:
        counts.append(1)
        return batch_of(*arguments)

    return counting


def _worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name, (training, options) in CASES.items():
        passes: list[int] = []
        loop.batch_of = _counted(passes)
        case = Path(folder, name)
        _save(case, fitted(case, training, **options))
        Path(folder, f"{name}.{rank}.passes").write_text(str(len(passes)))
    for sharding in ("ddp", "fsdp2"):  # lost after step 5, all start again at the checkpoint of step 4
        case = Path(folder, f"{sharding}_resumed")
        for on_step in (stop_after(5), lambda metrics: {}):
            try:
                _save(case, fitted(case, RESUMED, sharding=sharding, on_step=on_step))
            except Stopped:
                dist.barrier()
        # this one is left as it is: a single worker takes it up
        case = Path(folder, f"{sharding}_left")
        with pytest.raises(Stopped):
            fitted(case, RESUMED, sharding=sharding, on_step=stop_after(5))
        Path(folder, f"{sharding}.{rank}.exchange").write_text(json.dumps(_exchange(sharding, rank)))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # DDP objects outlive the group; torn down with the interpreter, gloo's threads now and then abort it


def _exchange(sharding: str, rank: int) -> list[bool]:
    """After a pass that is not the last, and after the last one: do both workers have the same gradients?"""
    sides = parallel.distribute(tiny_model("llama"), sharding, torch.device("cpu"))
    same = []
    for is_last in (False, True):
        with sides.accumulate(is_last):
            sides.loss(*batch_of(DEV, [rank], PAD, torch.device("cpu"))).backward()
        norms = [torch.zeros(1), torch.zeros(1)]
        own = [parallel.whole(p.grad).norm() for p in sides.model.parameters() if p.grad is not None]
        dist.all_gather(norms, torch.stack(own).norm()[None] if own else torch.full((1,), torch.nan))
        same.append(bool(norms[0] == norms[1]))  # no gradient yet (nan) is not the same
    return same


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_worker, args=(str(folder), port), nprocs=2)
    return folder


def _result(folder: Path) -> State:
    state = load_file(folder / "result")
    return {**state, "lm_head.weight": state["model.embed_tokens.weight"]}  # tied


def _close(measured: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Are all logged numbers equal: losses, gradient norms, dev losses, tokens?"""
    pairs = zip(measured, expected, strict=True)
    return all(a == pytest.approx(b, rel=1e-4, abs=1e-5) for a, b in pairs)


@pytest.mark.parametrize("case", ["ddp", "fsdp2", "fsdp2_checkpointing", "fsdp2_lora"])
def test_two_workers_equal_one(two: Path, case: str, tmp_path: Path) -> None:
    training, options = CASES[case]
    alone = fitted(tmp_path, training, dev=options.get("dev"))
    assert distance(_result(two / case), alone) < 0.02 * training.learning_rate
    assert _close(metrics_of(two / case), metrics_of(tmp_path))
    assert distance(alone, fitted(tmp_path / "untrained", training.model_copy(update={"learning_rate": 1e-12}))) > 1e-3


def test_one_worker_with_8_passes_equals_two_with_4(two: Path, tmp_path: Path, monkeypatch: Any) -> None:
    passes: list[int] = []
    monkeypatch.setattr(loop, "batch_of", _counted(passes))
    alone = fitted(tmp_path, ONE_ROW_A_PASS)
    steps = len(metrics_of(tmp_path))
    assert len(passes) == 8 * steps
    assert [(two / f"accumulated.{rank}.passes").read_text() for rank in (0, 1)] == [str(4 * steps)] * 2
    assert distance(_result(two / "accumulated"), alone) < 2e-5
    assert _close(metrics_of(two / "accumulated"), metrics_of(tmp_path))


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_gradients_are_exchanged_after_the_last_pass_only(two: Path, sharding: str) -> None:
    assert [json.loads((two / f"{sharding}.{rank}.exchange").read_text()) for rank in (0, 1)] == [[False, True]] * 2


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_a_lost_stage_goes_on_with_two_workers_or_with_one(two: Path, sharding: str, tmp_path: Path) -> None:
    straight = fitted(tmp_path, RESUMED)
    assert distance(_result(two / f"{sharding}_resumed"), straight) < 2e-5
    assert json.loads((two / f"{sharding}_left/checkpoint/state.json").read_text())["step"] == 4
    assert distance(fitted(two / f"{sharding}_left", RESUMED), straight) < 2e-5
    assert _close(metrics_of(two / f"{sharding}_left"), metrics_of(tmp_path))
