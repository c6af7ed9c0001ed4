"""What the cluster gives each step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from raypipe.settings.sections.values import Section


class Resources(Section):
    """What the cluster gives each step."""

    attribution_actors: int | Literal["auto"] = "auto"
    """Actors that hold a model for attribution and scoring. `auto`: as many as the GPUs hold, those of nodes that join
    meanwhile too; without GPUs, one per two CPUs."""
    min_attribution_actors: int | None = Field(None, ge=1)
    """With it, the pool begins with what there is room for, grows to `attribution_actors` as nodes join, and lets idle
    actors go down to this many, so that there is room for new ones when a node is lost. None: no actor goes."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs of each of these actors."""
    gpus_per_actor: float | Literal["auto"] = "auto"
    """Share of a GPU that each of them takes: at 0.25, four small models are on a card. `auto`: a card each, or less
    where `attribution_actors` is more than the GPUs."""
    training_workers: int = Field(1, ge=1)
    """Workers of each training."""
    min_training_workers: int | None = Field(None, ge=1)
    """After a lost worker, go on with as few as this (Ray Train restarts the group). None: wait for all of them."""
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    """`ddp`: a replica on each worker. `fsdp2`: parameters sharded over the workers."""
    ray: bool = True
    """False: everything in this process, one step after the other; for small corpora."""
    cpus_per_worker: float | Literal["auto"] = "auto"
    """CPUs of each training worker. `auto`: the cores, shared by the arms that train at once."""
    use_gpu: bool | Literal["auto"] = "auto"
    """`auto`: GPUs if there are any. True: refuse to run without one. False: CPUs alone."""
    rows_per_block: int = Field(256, ge=1)
    """Notes of one block: the unit of parallelism, of retry and of resume."""
    concurrent_arms: int = Field(1, ge=1)
    """Arms that train at once."""
    no_progress_timeout_s: int = Field(900, ge=1)
    """Seconds without progress after which a step ends with an error; the same command goes on."""
    allow_unauthenticated_cluster: bool = False
    """Join a Ray cluster that asks for no token: anyone on its network can run code there."""

    @field_validator("gpus_per_actor")
    @classmethod
    def _share_of_one_card(cls, share: float | str) -> float | str:
        if isinstance(share, float) and not 0 < share <= 1:
            what = "must be a share of one card, more than 0 and at most 1: no scorer is spread over several cards. "
            raise ValueError(f"{what}Take a smaller one, or cards with more memory")
        return share

    @model_validator(mode="after")
    def _min_within_max(self) -> Resources:
        if (self.min_training_workers or 1) > self.training_workers:
            raise ValueError("min_training_workers is more than training_workers")
        if self.attribution_actors != "auto" and (self.min_attribution_actors or 1) > self.attribution_actors:
            raise ValueError("min_attribution_actors is more than attribution_actors")
        return self

    @property
    def workers(self) -> int | tuple[int, int]:
        """Training workers as Ray Train takes them: how many, or at least and at most."""
        fewest = self.min_training_workers
        return self.training_workers if fewest is None else (fewest, self.training_workers)
