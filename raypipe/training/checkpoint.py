"""Where an unfinished training goes on: safetensors and JSON, never pickle.

A checkpoint holds full tensors, so a training may go on with another number of workers, replicated or sharded. Dropout
is seeded by the step and the order of rows by the seed: there are no random states to keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from raypipe.records import write_json
from raypipe.training.parallel import like, whole

Named = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Progress:
    """How far a training has come."""

    step: int = 0  # finished optimiser steps
    seconds: float = 0.0  # that they took, over all attempts


def save(folder: Path, trained: Named, optimizer: torch.optim.Optimizer, progress: Progress, is_first: bool) -> None:
    """Trained parameters, their moments and the progress. All workers call; the first writes.

    `state.json` names the tensors' file and is replaced in one move: a crash leaves the checkpoint before.
    """
    tensors = {}
    for name, parameter in trained.items():
        for key, value in {"parameter": parameter.detach(), **optimizer.state[parameter]}.items():
            full = whole(torch.as_tensor(value))  # every worker: shards are exchanged here
            if is_first:
                tensors[f"{name}|{key}"] = full.cpu().contiguous()
    if is_first:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step-{progress.step}.safetensors"
        save_file(tensors, file)
        write_json(folder / "state.json", {"file": file.name, **asdict(progress)})
        for other in set(folder.glob("*.safetensors")) - {file}:
            other.unlink()


@torch.no_grad()
def restore(folder: Path, trained: Named, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the checkpoint, if there is one, into parameters and optimiser."""
    if not (folder / "state.json").exists():
        return Progress()
    state = json.loads((folder / "state.json").read_text())
    with safe_open(folder / state.pop("file"), framework="pt") as tensors:
        keys: dict[str, list[str]] = {}
        for entry in tensors.keys():  # noqa: SIM118 (no mapping)
            name, key = entry.rsplit("|", 1)
            keys.setdefault(name, []).append(key)
        for name, parameter in trained.items():
            values = {key: tensors.get_tensor(f"{name}|{key}") for key in keys[name]}
            parameter.copy_(like(parameter, values.pop("parameter")))
            # moments are cut like their parameter; the count of steps is one number beside it
            optimizer.state[parameter] = {
                key: value.to(parameter.device) if key == "step" else like(parameter, value)
                for key, value in values.items()
            }
    return Progress(**state)
