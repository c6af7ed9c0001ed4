"""Every training: the loop and its adapters, the backbone from scratch, the scorer, and other fine-tunings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from raypipe.settings.sections.values import Fraction, Section

ScratchFamily = Literal["llama", "qwen3", "gpt_neox"]  # what `pretrain` can build


class Lora(Section):
    """LoRA adapters on all linear layers (code: rank 32, alpha 64, dropout 0.05)."""

    rank: int = Field(32, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(64, ge=1)
    """The adapters' output is scaled by alpha / rank."""
    dropout: Fraction = 0.05
    """Dropout before the adapters."""
    first_block: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = 0
    """The first block with adapters; a float is a fraction of the depth. Nothing is trained, and no backward pass
    runs, below it."""

    def first_of(self, depth: int) -> int:
        """The number of the first block with adapters, of a model with `depth` blocks."""
        return round(self.first_block * depth) if isinstance(self.first_block, float) else self.first_block

    def misses(self, depth: int) -> str | None:
        """What is wrong with `first_block` for a model with `depth` blocks; None if it has such a block."""
        if self.first_of(depth) < depth:
            return None
        return f"is {self.first_block}, which leaves no block to train: the model has {depth}, numbered from 0"


class Training(Section):
    """One training stage: pretraining, reconstruction or fine-tuning. The loop is the same (training/loop.py).

    Keys that `scorer.training` does not give are those of `finetune`; those of an arm's `train`, those of `train`.
    """

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Betas of AdamW."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises to its peak."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the rows."""
    max_steps: int | None = Field(None, ge=1)
    """Most optimiser steps. Training ends here or after `epochs`, whichever comes first."""
    batch_rows: int = Field(16, ge=1)
    """Rows of one optimiser step, over all workers."""
    micro_batch_tokens: int = Field(16_384, ge=1)
    """Most tokens of one forward pass, padding included."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient; larger ones are scaled down to it."""
    dropout: Fraction = 0.0
    """Dropout of the model itself."""
    lora: Lora | None = None
    """Train LoRA adapters alone. None: train all parameters."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products. `auto`: bfloat16 on a GPU, float32 on a CPU. A CPU without instructions for bfloat16 computes in
    float32 where `bfloat16` is asked for, too: emulating them is slower and less exact."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    seed: int = 0
    """Seed of the order of the rows, of dropout and of new parameters."""
    eval_every: int | None = Field(None, ge=1)
    """Of trainings on labels: steps between evaluations of the loss on dev. None: at the end."""
    checkpoint_every: int | None = Field(500, ge=1)
    """Steps between checkpoints. None: never, and an interrupted stage starts anew."""


class Pretrain(Section):
    """A small decoder and its byte-level BPE tokenizer, from scratch."""

    family: ScratchFamily = "llama"
    """Architecture (models/families.py)."""
    vocab_size: int = Field(2000, ge=300)
    """Tokens of the vocabulary. The mask sentinels come on top."""
    hidden_size: int = Field(128, ge=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(384, ge=8)
    """Width of the feed-forward layers."""
    layers: int = Field(4, ge=1)
    """Decoder blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads of each block."""
    context: int = Field(512, ge=16)
    """Longest row, in tokens. A longer note becomes several rows."""
    max_pieces: int | None = Field(None, ge=1)
    """Most rows made of one note, from its head. None: all."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the random weights."""
    emphasis: dict[str, float] = {}
    """Words, with the space before them, and the weight of their prediction in the loss (all others weigh 1)."""
    training: Training = Training(learning_rate=2e-3, batch_rows=32)


class Scorer(Section):
    """The model whose relevance guides the masks, and whose answers are pseudo-labels.

    By default it is the first student of labels alone: the backbone with the fine-tuning of every student. With
    settings of its own, a good scorer can serve students that are fine-tuned for less. Untuned, it uses no label
    (code).
    """

    training: Training | None = None
    """Its training on labels. Keys that are not given are those of `finetune`. None: that of `finetune`."""
    untuned: bool = False
    """True: the backbone as it is."""

    @model_validator(mode="after")
    def _one_way(self) -> Scorer:
        if self.untuned and self.training is not None:
            raise ValueError("is untuned, so that its training would be in vain: remove one of the two")
        return self


class Candidates(Section):
    """Values that dev labels choose from: those with the best macro F1 of labels alone, for each seed and label budget.

    All arms are fine-tuned with what was chosen, as they share every other setting of fine-tuning (ours).
    """

    epochs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Passes over the rows. Empty: not chosen."""
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Peak learning rates. Empty: not chosen."""


class Finetuning(Training):
    """Another fine-tuning of the same reconstructed students. Keys that are not given are those of `finetune`."""

    model_config = ConfigDict(json_schema_extra={"defaults_of": "finetune"})

    choose: Candidates | None = None
    """Epochs and learning rate chosen on dev labels. None: as they stand here."""

    @property
    def candidates(self) -> list[Training]:
        """The trainings that dev labels choose from, shortest first; the only one if there is no choice."""
        chosen = self.choose or Candidates()
        training = Training(**self.model_dump(exclude={"choose"}))
        return [
            training.model_copy(update={"epochs": epochs, "learning_rate": rate})
            for epochs in sorted(chosen.epochs) or [self.epochs]
            for rate in sorted(chosen.learning_rate) or [self.learning_rate]
        ]
