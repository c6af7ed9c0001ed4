"""Relevance: the method, what it explains, and where it is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypipe.settings.sections.values import Section
from raypipe.words import WordReduction

Target = Literal["label_margin", "label_logprob", "item_mid_max"]


class Attribution(Section):
    """Which words of a note matter for a task (attribution/)."""

    method: str = "grad_x_activation"
    """A key of `attribution.registry.METHODS`, or `captum:<LayerMethod>`."""
    target: Target = "label_margin"
    """The number that relevance explains. `label_logprob`: the log-probability of the predicted option. `label_margin`:
    the same less that of the runner-up. `item_mid_max`: the largest logit at the question's middle token (code)."""
    layer: int | Annotated[float, Field(ge=0, le=1)] | Literal["all"] = 0
    """Where relevance is read: 0 is the embeddings, k the output of block k. A float is a fraction of the depth."""
    keep: Literal["layer", "all"] = "layer"
    """`all`: one pass stores the relevance of every valid layer, and `layer` only says which of them masking reads. A
    search over layers then attributes once."""
    reduction: Literal["auto", "sum", "l2"] = "auto"
    """How the width of a token's vector becomes one number. `sum` adds up to the target and `l2` is the norm.
    `auto`: `l2` for grad_x_activation, whose sum the first normalisation layer cancels; `sum` for other methods.
    Not read by kv_direct, occlusion, attention_mean, tfidf and random."""
    sign: Literal["abs", "positive", "signed"] = "abs"
    """What of a token's relevance counts: its size, its positive part, or the number as it is."""
    word_reduction: WordReduction = "max"
    """How the relevance of a word's tokens becomes that of the word."""
    tasks_per_note: int | None = Field(2, ge=1)
    """Tasks that each note is attributed for, sampled with `seed`. None: all (code: 9)."""
    batch_tokens: int = Field(8192, ge=1)
    """Most tokens of one forward pass, padding included."""
    steps: int = Field(20, ge=1)
    """Steps of integrated gradients."""
    baseline: Literal["zero", "mean"] = "zero"
    """Where the path of integrated gradients begins."""
    window: int = Field(1, ge=1)
    """Neighbouring words that occlusion deletes together."""

    def named(self, name: str) -> Attribution:
        """The same with another method, as `faithfulness.methods` names it: method, or method/reduction."""
        method, _, reduction = name.partition("/")
        return self.model_copy(update={"method": method, "reduction": reduction or "auto"})

    @property
    def norm(self) -> Literal["sum", "l2"]:
        """`reduction`, and what `auto` stands for."""
        if self.reduction != "auto":
            return self.reduction
        return "l2" if self.method in ("grad_x_activation", "captum:LayerGradientXActivation") else "sum"
