"""Every setting of a run, in one place: one frozen section per part of the work.

The sections stand in the order in which `Config`, at the end, lists them. First come those of a run, in the order in
which a note meets them; then those of single commands (`faithfulness`, `probe`, `canaries`, `compare`, `tune`); last
the cluster.

The string under a key is its description: `docs/settings.md` is generated from it (reference.py). *Paper* and *code*
mark a value or a behaviour of the authors (arXiv 2606.09466 and its repository; for other methods, of the source that
is named); *ours* marks a deviation. All other defaults are ours.

Imports neither torch nor ray, so that a config can be checked on a laptop. Unknown keys are refused; `configfile.load`
turns a YAML file into a `Config` and reports every problem at once, with file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from raypipe.guard import limits
from raypipe.words import WordReduction

Fraction = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]  # becomes a directory name
Split = Literal["train", "dev", "test"]
Chat = Literal["auto", "bare", "never"]
Target = Literal["label_margin", "label_logprob", "item_mid_max"]
ScratchFamily = Literal["llama", "qwen3", "gpt_neox"]  # what `pretrain` can build


class Section(BaseModel):
    """Base of all sections: an unknown key is refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class Columns(Section):
    """What the columns of the notes file are called."""

    note_id: str = "note_id"
    """Column with the identifier of each note."""
    text: str = "text"
    """Column with the text of each note."""
    group_id: str | None = None
    """Column with what ties notes together (patient, ingredient, ...). No group is used for self-supervision and
    tested, too."""
    tags: str | None = None
    """Column with BIO tags, one per whitespace token: read by `mslm.terms: ner`, or in place of `spans`."""
    spans: str | None = None
    """Column with annotators' spans, for tasks that say with `spans:` which of them decide the answer."""


class LabelColumns(Section):
    """What the columns of the labels table are called. The table has a row per task and note, or is wide: a row per
    note and a column per task, as hospitals export them."""

    note_id: str = "note_id"
    """Column with the note's identifier."""
    task_id: str | None = "task_id"
    """Column that says which task a row answers. None: the table is wide. A task's column is called as the task, or as
    `tasks` says; an empty cell is no label."""
    label: str = "label"
    """Column with the label; not read in a wide table."""
    split: str | None = "split"
    """Column with train, dev or test. None: there is none, and the notes are split as `data.split` says."""
    tasks: dict[str, str] = {}
    """In a wide table: task id -> the name of its column."""

    @model_validator(mode="after")
    def _wide_only(self) -> LabelColumns:
        if self.tasks and self.task_id is not None:
            raise ValueError("`tasks` names the columns of a wide table: set `task_id: null`, or remove `tasks`")
        return self


class Splitting(Section):
    """The split of labelled notes that come without one (`label_columns.split: null`): by group (patient), so that no
    group is in two splits; as far as groups allow, each split has its share of every label (notes/split.py)."""

    dev: Fraction = 0.15
    """Share of the labelled notes that tune and calibrate."""
    test: Fraction = 0.25
    """Share of the labelled notes that are scored. The rest is for training."""
    seed: int = 0
    """Another seed is another split."""

    @model_validator(mode="after")
    def _leaves_training(self) -> Splitting:
        if self.dev + self.test >= 1:
            raise ValueError("dev and test leave nothing to train on: together they must be less than 1")
        return self


class Synthetic(Section):
    """The generated emergency notes of the demo (notes/synthetic.py)."""

    seed: int = 0
    """Seed of the generator: the same section gives the same notes, byte for byte."""
    n_labelled: int = Field(300, ge=8)
    """Number of labelled training notes."""
    n_unlabelled: int = Field(1000, ge=1)
    """Number of notes without labels."""
    n_dev: int = Field(200, ge=8)
    """Number of labelled dev notes."""
    n_test: int = Field(400, ge=8)
    """Number of labelled test notes."""
    n_pretraining: int = Field(4000, ge=1)
    """Number of notes that only `pretrain` reads."""
    difficulty: Fraction = 0.0
    """Adds negated and historical mentions, boilerplate, longer lists, and forms that no label shows."""
    modifiers: Fraction = 0.3
    """Share of the mentions with a modifier, which ties the forms of a finding to each other."""
    local_share: Fraction = 0.3
    """Share of the mentions of a task's finding that use a form of the hospital's own."""
    unseen: Fraction | None = None
    """Share of the tasks with a form that no label shows. None: `difficulty` decides."""


_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_USER = re.compile(rf"(?:{_SCHEME}/*|//)[^@]*?(?::|%3a)[^@]*(?:@|%40)|[^/@:]+:[^/@]*@", re.IGNORECASE)
_QUERY = re.compile(r"[?&][^=]*(key|secret|token|password|pwd|sig|credential|auth)[^=]*=", re.IGNORECASE)


def _no_credential(uri: str) -> str:
    """Refuses a user with a password in every spelling, also in those that are no URI, and a key in the query."""
    if _USER.match(uri) or _QUERY.search(uri):
        raise ValueError("holds a credential; give it to the cluster's environment, not to the config")
    return uri


def location(uri: str) -> str:
    """A path or URI as it is. Raises `ValueError` if it is neither, or holds a credential."""
    if re.match(rf"{_SCHEME}(?!//)", _no_credential(uri)):
        raise ValueError("is neither a path nor a URI; write scheme://..., or ./ before a name with a colon")
    return uri


def _folder(path: str) -> str:
    if re.match(_SCHEME, _no_credential(path)):
        raise ValueError(
            "must be a path, and no URI: mount the store, or copy what is there (runs: raypipe upload, download)"
        )
    return path


Location = Annotated[str, Field(min_length=1), AfterValidator(location)]  # a path, or a URI without a credential
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_folder)]


def _expression(pattern: str) -> str:
    try:
        limits.compiled(pattern)
    except ValueError as error:
        raise ValueError(f"{pattern!r} is {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_expression)]  # a regular expression
Placeholder = Annotated[str, Field(pattern=r"^\S*[^\W_]\S*$")]  # one token that is a word


class Data(Section):
    """Where notes, labels and tasks come from. Paths are local, or any pyarrow/fsspec URI; `${VARS}` are expanded."""

    source: Literal["files", "synthetic"] = "files"
    """`files`: the paths below. `synthetic`: the generated notes of the section `synthetic`."""
    notes: Location | None = None
    """Notes as .parquet, .jsonl or .csv: a file, a folder or a glob."""
    labels: Location | None = None
    """Labels: a table with the columns task_id, note_id, label and split; other names and a wide table: see
    `label_columns`. It may be the file of the notes."""
    tasks: Location | None = None
    """Tasks: a YAML file, or a table with one task per row (notes/tasks.py)."""
    pretraining: Location | None = None
    """Notes for `pretrain`. None: the notes outside dev and test."""
    pretraining_share: float = Field(0.0, ge=0, lt=1)
    """Share of the notes (of the groups, if `columns.group_id` names them) that only `pretrain` reads. Neither training
    labels nor unlabelled notes come from it, so that the backbone has not seen what a comparison learns from."""
    columns: Columns = Columns()
    label_columns: LabelColumns = LabelColumns()
    split: Splitting = Splitting()
    synthetic: Synthetic = Synthetic()
    task_ids: tuple[str, ...] | None = None
    """The tasks to use. None: all."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Most notes for self-supervision, the first by hashed id. None: all."""
    max_labelled: int | None = Field(None, ge=1)
    """Most training labels per task, the first by hashed id, so that smaller subsets lie within larger ones.
    None: all."""
    max_dev: int | None = Field(None, ge=1)
    """Most dev labels per task, the first by hashed id. None: all."""
    max_test: int | None = Field(None, ge=1)
    """Most test labels per task, the first by hashed id. None: all."""
    label_seed: int = 0
    """Internal: `raypipe compare` sets it for each of its seeds. Another order of the training labels, and so another
    subset under `max_labelled`."""
    transductive: bool = False
    """Whether notes of dev and test groups may be used for self-supervision (without their labels)."""
    placeholders: dict[str, Placeholder] = {}
    """What is replaced in every note before anything else reads it, and by what: `{date: "[DATA]", phone: "[TEL]"}`.
    Kinds are those that `check` looks for (tax_code, email, date, phone, name), those of `identifiers`, and the types
    of annotated spans (`columns.spans`; they move with the text). Empty: nothing."""
    identifiers: dict[str, Pattern] = {}
    """Regular expressions of further kinds for `placeholders`, such as a hospital's own record numbers. A note on which
    one takes longer than 5 seconds becomes a dead letter."""
    on_duplicate_id: Literal["error", "keep_first"] = "error"
    """What to do with a note id that occurs twice."""
    max_chars: int = Field(200_000, ge=1)
    """Longest note, in characters. Longer ones become dead letters."""
    max_error_rate: Fraction = 0.05
    """Largest share of notes that may become dead letters before a step ends with an error."""

    @property
    def for_pretraining(self) -> Data:
        """This section as it reads the pretraining corpus: ids and text by the same names, no groups, no limits."""
        if self.pretraining is None:
            return self
        columns = self.columns.model_copy(update={"group_id": None, "tags": None, "spans": None})
        return self.model_copy(update={"notes": self.pretraining, "columns": columns, "max_unlabelled": None})


class Prompt(Section):
    """How a note and a question become tokens: instruction, note, question, answer (models/prompts.py)."""

    instruction: str = ""
    """The system turn, or plain text before the note when the model has no chat template."""
    question: str = Field("\n{question}:", pattern=r"\{question\}")
    """The question after the note. `{question}` and `{options}` are filled in from the task. `{mask}`, in the place of
    the answer, is the mark that hides the first span of a masked note (code); masked notes with `condition: item` show
    the question without it."""
    answer_prefix: str = " "
    """Text between question and answer when the model has no chat template."""
    max_tokens: int = Field(1024, ge=16)
    """Most tokens of note and question together."""
    keep: Literal["head", "tail"] = "head"
    """Which end of a note that is too long stays. The question is never cut."""


class Model(Section):
    """The backbone: a hub id with a pinned revision, a local folder, or the run's own `pretrain` step."""

    path: LocalPath = "pretrain"
    """A local folder, a hub id, or `pretrain` for the model that the section `pretrain` describes."""
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    """The commit of a hub id, as 40 hex digits: tags and branches move."""
    adapter: LocalPath | None = None
    """A folder with a PEFT LoRA adapter, merged into the weights on loading."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the weights when notes are attributed and answers scored. `auto`: bfloat16 on a GPU, float32 on a
    CPU. `bfloat16`: there, too, if it has such products; what bfloat16 cannot settle is done again in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs. `auto`: the GPU if there is one."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """How a note with many questions is read. `sdpa`: with a dense mask. `flex`: PyTorch's FlexAttention, which leaves
    out what no question sees; for long notes with many questions on a GPU (benchmarks/bench_gpu.py compares both)."""
    chat: Chat = "auto"
    """`auto`: use the chat template if the tokenizer has one. `bare`: the same without the system text that some
    templates (SmolLM2, Qwen2.5) add of their own where there is no instruction. `never`: plain text."""


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


class Training(Section):
    """One training stage: pretraining, reconstruction or fine-tuning. The loop is the same (training/loop.py)."""

    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
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
    """Steps between evaluations of the loss on dev. None: at the end."""
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

    @property
    def norm(self) -> Literal["sum", "l2"]:
        """`reduction`, and what `auto` stands for."""
        if self.reduction != "auto":
            return self.reduction
        return "l2" if self.method in ("grad_x_activation", "captum:LayerGradientXActivation") else "sum"


class CorpusStatistics(Section):
    """Counts over the whole corpus, for the strategies that need them; made once per run (masking/statistics.py)."""

    general_counts: LocalPath | None = None
    """Words of general language, in the corpus's language: a table with the columns word and count (.parquet, .csv,
    .tsv). `pretraining`: count the notes of `data.pretraining`."""
    encoder: LocalPath | None = None
    """A local folder with a bidirectional encoder (BERT's family). Its view of single words takes the place of the
    student's embeddings."""
    max_notes: int = Field(50_000, ge=1)
    """Most notes that are counted, the first by hashed id."""
    min_notes: int = Field(5, ge=1)
    """Words that occur in fewer notes are left out: typos and names."""


class Hysteresis(Section):
    """Runs of words above `low` that hold a word above `high`, after smoothing (code: 0.2 and 0.4)."""

    low: Fraction = 0.2
    """Threshold at which a run begins and ends, as a share of the note's largest relevance."""
    high: Fraction = 0.4
    """Threshold that one word of the run must pass, as a share of the note's largest relevance."""
    smooth: bool = True
    """Smooth relevance first: three taps of a Gaussian with sigma 1, reflecting ends."""


class SpanLengths(Section):
    """Geometric span lengths in words, cut off at `longest`, as in SpanBERT (mean 3.8 words)."""

    p: float = Field(0.2, gt=0, le=1)
    """Parameter of the geometric distribution."""
    longest: int = Field(10, ge=1)
    """Longest span, in words."""


class Pmi(Section):
    """Collocations that are masked whole (Levine et al. 2021)."""

    longest: int = Field(5, ge=2, le=5)
    """Longest collocation, in words."""
    min_count: int = Field(10, ge=1)
    """Collocations that occur less often are left out."""
    top_per_length: int = Field(5000, ge=1)
    """Collocations of each length: those with the highest PMI."""


class Selective(Section):
    """Selective masking (Gu et al. 2020): a word matters if deleting it costs the task more than `delta`."""

    source: Literal["tagger", "relevance"] = "tagger"
    """`tagger`: word types that mattered in labelled notes. `relevance`: each note's own words that matter."""
    delta: float = Field(0.05, gt=0)
    """A word matters above this share of the note's largest drop (ours; paper: 0.05 of the probability)."""
    min_share: Fraction = 0.5
    """With `source: tagger`, hide word types that mattered in at least this share of their occurrences."""


class Mslm(Section):
    """Masking of domain terms and of other words, with a loss that knows the difference (arXiv 2403.18025)."""

    terms: Literal["lexicon", "ner", "tficf", "attribution"] = "lexicon"
    """Where domain terms come from: a file, the tags of the notes, corpus statistics, or mean relevance (ours)."""
    lexicon: LocalPath | None = None
    """With `terms: lexicon`: a text file with one term per line."""
    n_terms: int = Field(1000, ge=1)
    """With `terms: tficf`: how many words."""
    top_share: float = Field(0.05, gt=0, lt=1)
    """With `terms: attribution`: share of the vocabulary."""
    p_entity: Fraction = 0.5
    """Share of the occurrences of terms that are hidden (code: 0.25 in scripts, 1 by default)."""
    p_base: Fraction = 0.15
    """Share of the other words that are hidden (code: 0.075, 0.15 and 0.225)."""
    max_ratio: float | None = Field(None, gt=0, lt=1)
    """Largest share of the eligible words that may be hidden. None: no limit."""
    weights: Literal["fixed", "inverse", "code"] = "fixed"
    """Weights of terms and other words in the loss, rescaled to a mean of 1 (ours). `fixed`: the two below. `inverse`:
    each kind weighs what the other one has. `code`: as the authors compute them."""
    entity_weight: float = Field(2.0, gt=0)
    """With `weights: fixed`: weight of terms."""
    base_weight: float = Field(1.0, gt=0)
    """With `weights: fixed`: weight of other words."""
    count_factor: bool = False
    """Whether the loss of an example also grows with its number of hidden tokens (code)."""


class DifferenceMasking(Section):
    """Difference-Masking (arXiv 2305.14577): hide words near those that set the corpus apart."""

    anchors: int = Field(20, ge=1)
    """Words that set the corpus apart (code: 20 in the final scripts)."""
    weight: Literal["rank", "similarity", "rank_global"] = "rank"
    """What the probability of a word follows: its rank in the note (code), its similarity to the nearest anchor (ours),
    or its rank in the corpus (ours)."""
    gamma: float = Field(1.0, gt=0)
    """With `weight: similarity`: exponent of the similarity."""
    alpha: Fraction = 1.0
    """1: the difference alone; 0: all words alike (code: off, or 0.1, 0.3, 0.5 and 0.7)."""


class Masking(Section):
    """Which words are hidden and how the example is written (masking/). `profile` sets the defaults of the other keys.

    Not every strategy reads every key. A key that was changed although nothing reads it is refused.
    """

    profile: Literal["raypipe", "paper"] = "raypipe"
    """`paper`: the defaults of arXiv 2606.09466 as its code has them, with defects fixed. Keys that are given win."""
    strategy: str = "relevance"
    """A key of `masking.strategies.STRATEGIES`."""
    selection: Literal["topk", "sample", "hysteresis"] = "topk"
    """How a strategy that ranks words by relevance picks them."""
    ratio: float = Field(0.15, gt=0, lt=1)
    """Hidden eligible words per eligible word."""
    match_ratio_to: Name | None = None
    """The arm whose realised ratio this arm copies, note by note."""
    temperature: float = Field(0.5, gt=0)
    """With `selection: sample`: words are drawn with probability proportional to relevance^(1 / temperature)."""
    draws: int = Field(1, ge=1, le=1000)
    """Masking plans per note and task; the epochs use them in turn."""
    seed: int = 0
    """Seed of this arm's draws, beside the run's own."""
    stop_words: bool = True
    """Spare Italian, Spanish and English function words. Negations are never spared."""
    phi_patterns: tuple[Pattern, ...] = ()
    """Regular expressions. What they match is never a target. A note on which one takes longer than 5 seconds becomes a
    dead letter."""
    max_span_words: int | None = Field(10, ge=1)
    """Longest span, in words; longer ones are cut in two. None: no limit."""
    max_spans: int = Field(32, ge=1, le=64)
    """Most spans of one `multi` example; further spans go to a further example."""
    format: Literal["single", "multi"] = "multi"
    """`multi`: all hidden spans of an example at once, each with its own sentinel (ours). `single`: one example per
    span (paper)."""
    condition: Literal["none", "item"] = "none"
    """`item`: the question follows the masked note."""
    instruction: str = ""
    """The system turn, or plain text before the note when the model has no chat template."""
    sentinels: Literal["auto", "plain"] | tuple[str, ...] = "auto"
    """Marks in place of hidden words. `auto`: the family's reserved tokens if it has any, else plain text."""
    prompt_loss: float = Field(0.0, ge=0, le=1)
    """Weight of the masked note's own tokens in the loss (lambda)."""
    hysteresis: Hysteresis = Hysteresis()
    span: SpanLengths = SpanLengths()
    pmi: Pmi = Pmi()
    selective: Selective = Selective()
    mslm: Mslm = Mslm()
    difference: DifferenceMasking = DifferenceMasking()

    @model_validator(mode="before")
    @classmethod
    def _fill_profile(cls, values: Any) -> Any:
        """Keys that are given win over the profile, the profile over the defaults above."""
        if not isinstance(values, dict):
            return values
        return {**PROFILES.get(str(values.get("profile")), {}), **values}


# paper: arXiv 2606.09466 as its code has it, defects fixed; the instruction's wording is ours.
PROFILES: dict[str, dict[str, Any]] = {
    "raypipe": {},
    "paper": {
        "selection": "hysteresis",
        "stop_words": False,
        "max_span_words": None,
        "format": "single",
        "instruction": "Fill in the masked words.",
        "prompt_loss": 1.0,
    },
}


class PseudoLabels(Section):
    """The scorer answers the tasks of unlabelled notes, and the student learns the answers that it is sure of (ours).

    The paper compares with synthetic labels, but its recipe is not public; this is the usual one.
    """

    confidence: float = Field(0.9, gt=0, lt=1)
    """Least probability of the chosen option, among the options."""
    max_imbalance: float | None = Field(3.0, ge=1)
    """Most answers of a class, as a multiple of the answers of the task's rarest class. None: no limit."""


class Arm(Section):
    """One line of the comparison: how the student learns from unlabelled notes before it sees the labels."""

    masking: Masking | None = None
    """Reconstruct masked notes. None: no reconstruction."""
    pseudo_labels: PseudoLabels | None = None
    """Instead of masking: learn the scorer's own answers."""
    attribution: Attribution | None = None
    """Relevance of the arm's own, instead of the section `attribution` that all arms share."""
    label_share: float = Field(0.0, ge=0, lt=1)
    """Share of the rows of this stage that are labelled fine-tuning rows; masked and labelled rows take turns. Labelled
    rows are added to the others, so without `max_steps` the stage takes more steps."""
    start: Literal["backbone", "random"] = "backbone"
    """`random`: the same architecture with untrained weights, as a control."""
    finetune: bool = True
    """False: the backbone answers as it is (zero-shot)."""

    @property
    def reconstructs(self) -> bool:
        """Does the student learn from unlabelled notes before it sees the labels?"""
        return self.masking is not None or self.pseudo_labels is not None

    @model_validator(mode="after")
    def _one_way(self) -> Arm:
        if self.masking is not None and self.pseudo_labels is not None:
            raise ValueError("has both masking and pseudo_labels: make two arms of it")
        if self.label_share and not self.reconstructs:
            raise ValueError("label_share needs masking or pseudo_labels: there is nothing to mix labels with")
        if self.attribution is not None and (self.masking is None or self.masking.match_ratio_to is not None):
            raise ValueError("an arm with an attribution of its own needs masking, with a ratio of its own, too")
        if not self.finetune and (self.masking or self.pseudo_labels or self.start == "random"):
            raise ValueError("finetune: false is for an arm that has nothing else: the backbone as it is")
        return self


class Conformal(Section):
    """Prediction sets that hold the true label with probability 1 - alpha (evaluation/conformal.py)."""

    alpha: float = Field(0.1, gt=0, lt=1)
    """Probability that a set may miss the true label."""
    score: Literal["lac", "aps"] = "lac"
    """`lac`: the smallest sets. `aps`: sets that grow where the model is unsure."""


class Evaluation(Section):
    """How students answer, and how their answers are measured."""

    split: Split = "test"
    """Labels that are scored."""
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


class ArmComparison(Section):
    """`raypipe compare`: the arms, repeated over seeds and label budgets (runs/compare.py)."""

    seeds: int = Field(3, ge=1)
    """Repetitions, each with its own subset of the labels, scorer, masks, reconstruction and `repeats` fine-tunings."""
    budgets: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Training labels per task, each measured beside `data.max_labelled`."""
    pairs: tuple[tuple[Name, Name], ...] = ()
    """Pairs (arm, reference) that are tested beside each arm against the first."""
    finetunings: dict[Name, Finetuning] = {}
    """Other fine-tunings, by name, measured beside `finetune`: each starts from the same reconstructed students, with
    the same scorer."""
    seeds_in_tasks: bool = False
    """True: each seed makes its scorer and masks in one process, side by side with the others; for notes that one
    process reads in minutes. False: one seed after the other, each on the whole cluster."""


class Tune(Section):
    """`raypipe tune`: a search over settings (tuning/). What is searched stands in a file of tune_spaces/."""

    models: tuple[Annotated[str, AfterValidator(_no_credential)], ...] = ()
    """Backbones, each a study of its own: a local folder, a hub id with its commit (`id@<40 hex digits>`) or
    `pretrain:<family>`. Empty: that of the section `model`."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Most notes that trials learn from. None: `data.max_unlabelled`."""
    concurrent_trials: int | Literal["auto"] = "auto"
    """Trials that run at once. `auto`: as many as the cores or the shares of the GPUs allow."""
    cpus_per_trial: float = Field(1.0, gt=0)
    """CPUs of each trial."""
    gpus_per_trial: float = Field(1.0, gt=0)
    """GPUs of each trial, if the cluster has any. Less than 1: trials share a GPU."""
    max_failures: int = Field(1, ge=0)
    """How often a failed trial is tried again."""


def _server(uri: str) -> str:
    if not re.match("https?://", _no_credential(uri)):
        raise ValueError("must be the address of an MLflow server: http://HOST:5000")
    return uri


class Tracking(Section):
    """Where the curves of trainings are shown beside the report (training/trackers.py): numbers alone, never text. No
    step's output depends on it."""

    tensorboard: bool = True
    """Event files in the folders of the trainings: `tensorboard --logdir RUN`, with the package tensorboard."""
    mlflow: Annotated[str, AfterValidator(_server)] | None = None
    """An MLflow server, such as http://localhost:5000 (`pip install raypipe[mlflow]`). The password, if it asks for
    one, is MLflow's own environment's. None: none."""
    allow_remote: bool = False
    """Whether the numbers, and the names of run, arms and steps, may go to an MLflow server on another machine."""
    dev_scores: bool = False
    """Macro F1 on the dev labels after each epoch of every fine-tuning, for its curve. Takes the time to score all dev
    notes as often."""

    @model_validator(mode="after")
    def _stays_here(self) -> Tracking:
        host = urlsplit(self.mlflow or "").hostname
        if host not in (None, "localhost", "127.0.0.1", "::1") and not self.allow_remote:
            raise ValueError(f"mlflow: {host} is another machine; `allow_remote: true` lets the numbers go there")
        return self


class Resources(Section):
    """What the cluster gives each step."""

    attribution_actors: int | Literal["auto"] = "auto"
    """Actors that hold a model for attribution and scoring. `auto`: as many as the GPUs hold, those of nodes that join
    meanwhile too; without GPUs, one per two CPUs."""
    min_attribution_actors: int | None = Field(None, ge=1)
    """With it, the pool begins with what there is room for, grows to `attribution_actors` as nodes join, and lets idle
    actors go down to this many, so that others may be made up for when a node is lost. None: no actor goes."""
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
    """Seconds without progress after which a step ends with an error; lost workers of a training begin again."""
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


def _inherited(sections: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Training sections as written, each with the keys of the run's `finetune` that it lacks."""
    finetune = run.get("finetune")
    base = finetune.model_dump() if isinstance(finetune, Training) else finetune
    return {
        name: {**base, **section} if isinstance(section, dict) and isinstance(base, dict) else section
        for name, section in sections.items()
    }


class Config(Section):
    """A whole run. Its resolved form is written to `<run>/config.yaml`."""

    name: Name = "run"
    """Name of the run, and of its folder."""
    runs: LocalPath = "runs"
    """Folder that holds the folders of all runs: a path that all nodes share, no URI."""
    seed: int = 0
    """Seed of everything random that has no seed of its own: sampled tasks, masks, resampling."""
    data: Data = Data()
    prompt: Prompt = Prompt()
    model: Model = Model()
    pretrain: Pretrain | None = None
    """The backbone from scratch, with `model.path: pretrain`."""
    finetune: Training = Training()
    """Training on labels: of each student after reconstruction, and of the scorer unless it has settings of its own."""
    scorer: Scorer = Scorer()
    attribution: Attribution = Attribution()
    statistics: CorpusStatistics = CorpusStatistics()
    arms: dict[Name, Arm] = {"sft": Arm(), "decselfmask": Arm(masking=Masking())}
    """The lines of the comparison, by name."""
    train: Training = Training()
    """Training of each student on masked notes (reconstruction) or on pseudo-labels."""
    repeats: int = Field(1, ge=1)
    """Fine-tunings of each student, which differ in the order of the rows and in new parameters."""
    evaluation: Evaluation = Evaluation()
    faithfulness: Faithfulness = Faithfulness()
    probe: Probe = Probe()
    canaries: Canaries = Canaries()
    comparison: ArmComparison = ArmComparison()
    tune: Tune = Tune()
    tracking: Tracking = Tracking()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as null in YAML; it means the defaults."""
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values

    @model_validator(mode="before")
    @classmethod
    def _like_finetune(cls, values: Any) -> Any:
        """Other fine-tunings have the keys of `finetune` that they do not give."""
        if not isinstance(values, dict):
            return values
        if isinstance(scorer := values.get("scorer"), dict):
            values = values | {"scorer": scorer | _inherited({"training": scorer.get("training")}, values)}
        comparison = values.get("comparison")
        if isinstance(comparison, dict) and isinstance(others := comparison.get("finetunings"), dict):
            values = values | {"comparison": comparison | {"finetunings": _inherited(others, values)}}
        return values

    @property
    def needs_hub(self) -> bool:
        """Does it name a model of the hub? Otherwise no step opens a connection for a model."""
        path = self.model.path
        return (path != "pretrain" and not Path(path).is_dir()) or any("@" in model for model in self.tune.models)

    @property
    def scorer_training(self) -> Training:
        """How the scorer is fine-tuned, unless it is untuned."""
        return self.scorer.training or self.finetune

    @property
    def scorer_is_a_student(self) -> bool:
        """Is the scorer what labels alone make of the backbone, with the fine-tuning of every student?"""
        return not self.scorer.untuned and self.scorer_training == self.finetune
