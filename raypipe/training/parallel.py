"""Several workers on one model: a replica on each (DDP), or each parameter sharded over them (FSDP2).

Both average gradients over the workers. The same loop runs on either: what differs is in these two classes, and in
`whole` and `like`, which go between a shard and the full tensor.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from raypipe.models.families import FAMILIES
from raypipe.training.loss import WeightedLoss


def rank_and_world() -> tuple[int, int]:
    """This worker's number and how many there are; (0, 1) without torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_workers(value: Tensor) -> Tensor:
    """`value` added up in place over all workers."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


class Replicas:
    """All parameters on every worker; also a worker that is alone."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model.to(device)
        self.core = WeightedLoss(self.model)  # what evaluation calls
        is_alone = rank_and_world()[1] == 1
        self.loss: nn.Module = self.core if is_alone else nn.parallel.DistributedDataParallel(self.core)

    def accumulate(self, is_last: bool) -> Any:
        """Context of one forward and backward pass: gradients are exchanged after the last one of a step."""
        return nullcontext() if is_last or self.loss is self.core else self.loss.no_sync()  # type: ignore[operator]

    def finish(self) -> None:
        """Bring the trained parameters into the model that was given."""


class Shards:
    """Every parameter, its gradient and its moments cut along the first axis, one part per worker.

    A decoder block's parameters are gathered when it runs and freed after it; embeddings, last norm and head stay
    together in the root. All workers must run equally many passes. The given model stays whole where it is (on the
    CPU, if it does not fit the device) and gets the trained parameters in the end.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.given, self.model = model, copy.deepcopy(model)
        self.core = self.loss = WeightedLoss(self.model)
        mesh = init_device_mesh(device.type, (rank_and_world()[1],))
        # moves parameters and buffers to the device, a block at a time
        for block in self.model.get_submodule(FAMILIES[model.config.model_type].blocks):
            fully_shard(block, mesh=mesh)
        # gathered again in the backward pass: outside of the passes, there are shards only
        fully_shard(self.core, mesh=mesh, reshard_after_forward=True)

    def accumulate(self, is_last: bool) -> Any:
        """As `Replicas.accumulate`; the gradient of a whole model waits in between, so few passes are better."""
        self.core.set_requires_gradient_sync(is_last)  # type: ignore[operator]
        return nullcontext()

    @torch.no_grad()
    def finish(self) -> None:
        """As `Replicas.finish`: all workers end with the full model, one parameter at a time."""
        for given, trained in zip(self.given.parameters(), self.model.parameters(), strict=True):
            if given.requires_grad:
                given.copy_(whole(trained))


def distribute(model: Any, sharding: str, device: torch.device) -> Replicas | Shards:
    """The model as `resources.sharding` wants it. One worker alone has nothing to shard."""
    return Shards(model, device) if sharding == "fsdp2" and rank_and_world()[1] > 1 else Replicas(model, device)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a shard (all workers must ask); any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """A full tensor beside a parameter: on its device, and cut like it. Every worker holds `value`; none sends any."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value
