"""What is measured: answers, and what `faithfulness`, `probe` and `canaries` look at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raypipe.settings.sections.attribution import Target
from raypipe.settings.sections.values import Fraction, Name, Section

Split = Literal["dev", "test"]


class Conformal(Section):
    """Prediction sets that hold the true label with probability 1 - alpha (evaluation/conformal.py)."""

    alpha: float = Field(0.1, gt=0, lt=1)
    """Probability that a set may miss the true label."""
    score: Literal["lac", "aps"] = "lac"
    """`lac`: the smallest sets. `aps`: sets that grow where the model is unsure."""


class Evaluation(Section):
    """How students answer, and how their answers are measured."""

    split: Split = "test"
    """Labels that are scored; never those that students learn from."""
    mode: Literal["label", "generate", "head"] = "label"
    """`label`: the option with the highest log-probability, divided by its length in tokens. `generate`: greedy
    decoding bound to the options. `head`: a classifier per task (`probe.head`, `probe.c`, `probe.folds`) on the
    student's last state before the answer, fitted to the training labels after fine-tuning (and without it, for an arm
    with `finetune: false`)."""
    conformal: Conformal | None = None
    """Prediction sets, calibrated on the dev labels. None: none."""
    embeddings: bool = False
    """Also report the line `embeddings_logistic`: the frozen backbone, read as `probe` says."""
    batch_tokens: int = Field(16_384, ge=1)
    """Most tokens of one forward pass, padding included."""
    bootstrap: int = Field(2000, ge=100)
    """Resamples behind each 95 % interval."""
    heat_maps: int = Field(0, ge=0)
    """Notes whose text, coloured by relevance, the report shows. Leave it at 0 where notes are protected."""


class Faithfulness(Section):
    """`raypipe faithfulness`: methods x targets x layers on labelled dev notes (evaluation/faithfulness.py).

    All other settings of a method are those of `attribution`.
    """

    methods: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_:]+(/(sum|l2))?$")], ...] = (
        "grad_x_activation",
        "grad_x_activation/sum",
        "integrated_gradients",
        "attnlrp",
        "kv_direct",
        "kv_direct_value",
        "occlusion",
        "attention_mean",
    )
    """Attribution methods, with `attribution.reduction: auto` or with another one (`/sum`, `/l2`). `random` is always
    measured beside them."""
    targets: tuple[Target, ...] = ("label_margin",)
    """Targets of attribution (`attribution.target`)."""
    layers: tuple[Fraction, ...] = (0.0, 0.375, 0.75)
    """Layers as fractions of the depth. A method skips those that it cannot read."""
    questions: int = Field(200, ge=1)
    """Pairs of a note and a task; tasks and labels take turns."""
    top_share: float = Field(0.15, gt=0, lt=1)
    """Share of a note's words, the most relevant ones, that is compared with the deciding words where these are
    annotated."""
    bootstrap: int = Field(2000, ge=100)
    """Resamples behind each 95 % interval."""


class Probe(Section):
    """`raypipe probe`: what the frozen states of every layer say about each task (evaluation/heads.py).

    The backbone is always probed.
    """

    after: tuple[Literal["train", "finetune"], ...] = ("train", "finetune")
    """`train`: the students after reconstruction, before they see a label (unless their arm has a `label_share`), which
    shows what their masking taught. `finetune`: the final students. Their states were fitted to the labels that the
    probe learns from, so that cross-validation is too hopeful here."""
    arms: tuple[Name, ...] | None = None
    """Arms to probe. None: all."""
    layers: tuple[Fraction, ...] | Literal["all"] = "all"
    """Layers as fractions of the depth."""
    pooling: tuple[Literal["last", "mean"], ...] = Field(("last", "mean"), min_length=1)
    """The state before the answer, the mean over the note, or both."""
    head: Literal["logistic", "mlp256"] = "logistic"
    """`mlp256`: one hidden layer of 256 (code)."""
    c: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)
    """Inverse L2 penalties that cross-validation chooses from."""
    folds: int = Field(5, ge=2)
    """Folds of the cross-validation, within the training notes."""
    control: bool = True
    """Also learn random labels of first words, for selectivity."""
    batch_tokens: int = Field(8192, ge=1)
    """Most tokens of one forward pass, padding included."""


class Canaries(Section):
    """`raypipe canaries`: secrets are planted in a copy of the notes, the arms learn from it, and their students are
    asked how likely each secret is among all of its form (notes/canaries.py)."""

    sentence: str = Field("Cartella di {name}: {secret}.", pattern=r"^[^{}]*\{name\}[^{}]*\{secret\}[^{}]*$")
    """What is written behind a note: about a person who does not exist, another one for each secret."""
    secret: str = Field("####", pattern=r"^([^#\s]*#){1,5}[^#\s]*$")
    """The form of all secrets: each `#` is a digit that is drawn. With n of them there are 10^n candidates, and every
    one is scored."""
    copies: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 4, 16), min_length=1)
    """In how many notes a secret stands. 0 is the control: what a student says that cannot know it. Notes with training
    labels are taken first, so that all arms read them."""
    each: int = Field(4, ge=1)
    """Secrets for each number of copies."""
    seed: int = 0
    """Another seed draws other secrets."""
