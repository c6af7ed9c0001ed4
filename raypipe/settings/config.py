"""Every setting of a run: one frozen section per step, in the order in which a row meets them.

Imports neither torch nor ray, so a config can be checked on a laptop. Unknown keys are refused; `configfile.load`
turns a YAML file into a `Config` and says file, line and field of every problem at once. Defaults marked *paper* or
*code* are the authors' (arXiv 2606.09466 and its repository); all others are ours.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from raypipe.words import WordReduction

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # becomes a directory name
Split = Literal["train", "dev", "test"]
ScratchFamily = Literal["llama", "qwen3", "gpt_neox"]  # what `pretrain` can build


class Section(BaseModel):
    """Base of all sections: nothing unknown gets in, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Columns(Section):
    """What the columns of the notes file are called."""

    note_id: str = "note_id"
    text: str = "text"
    group_id: str | None = None  # patient, ingredient, ...: never straddles self-supervision and test
    tags: str | None = None  # BIO tags, one per whitespace token: mslm.terms = ner, or in place of spans
    spans: str | None = None  # annotators' spans (notes/spans.py), for `spans:` of the tasks


class Synthetic(Section):
    """The generated emergency notes of the demo (notes/synthetic.py)."""

    seed: int = 0
    n_labelled: int = Field(300, ge=8)
    n_unlabelled: int = Field(1000, ge=1)
    n_dev: int = Field(200, ge=8)
    n_test: int = Field(400, ge=8)
    n_pretraining: int = Field(4000, ge=1)
    difficulty: Fraction = 0.0
    modifiers: Fraction = 0.3  # share of the mentions with a modifier, which ties the forms of a finding to each other
    local_share: Fraction = 0.3  # of the mentions of a task's finding: in a form of the hospital's own
    unseen: Fraction | None = None  # share of the tasks with a form that no label shows; None: difficulty decides


def _no_password(uri: str) -> str:
    if re.match(r"[^/]*://[^/@]*:[^/@]*@", uri) or re.search(r"[?&][^=]*(key|secret|token|password|sig)[^=]*=", uri):
        raise ValueError("holds a credential; give it to the cluster's environment, not to the config")
    return uri


Location = Annotated[str, Field(min_length=1), AfterValidator(_no_password)]


class Data(Section):
    """Where notes, labels and tasks come from. Paths: local or any pyarrow/fsspec URI; ${VARS} are expanded."""

    source: Literal["files", "synthetic"] = "files"
    notes: Location | None = None  # .parquet, .jsonl or .csv; a file, a folder or a glob
    labels: Location | None = None  # columns task_id, note_id, label, split
    tasks: Location | None = None  # YAML (docs in tasks.py), or a table with one task per row
    pretraining: Location | None = None  # notes for `pretrain`; None = the notes outside dev and test
    # Share of the notes (of the groups, if columns.group_id names them) that only `pretrain` reads. Neither training
    # labels nor unlabelled notes come from it: what a comparison of ways to learn shows the backbone is new to it
    pretraining_share: float = Field(0.0, ge=0, lt=1)
    columns: Columns = Columns()
    synthetic: Synthetic = Synthetic()
    task_ids: tuple[str, ...] | None = None  # a subset of the tasks
    max_unlabelled: int | None = Field(None, ge=1)  # notes for self-supervision, the first by hashed id
    max_labelled: int | None = Field(None, ge=1)  # training notes with labels, nested by hashed id
    max_dev: int | None = Field(None, ge=1)
    max_test: int | None = Field(None, ge=1)
    label_seed: int = 0  # another order of the training notes for `max_labelled`, and so another subset
    transductive: bool = False  # may notes of dev and test groups be used for self-supervision?
    on_duplicate_id: Literal["error", "keep_first"] = "error"
    max_chars: int = Field(200_000, ge=1)
    max_error_rate: Fraction = 0.05

    @property
    def for_pretraining(self) -> Data:
        """This section as it reads the pretraining corpus: ids and text by the same names, no groups, no limits."""
        if self.pretraining is None:
            return self
        columns = self.columns.model_copy(update={"group_id": None, "tags": None, "spans": None})
        return self.model_copy(update={"notes": self.pretraining, "columns": columns, "max_unlabelled": None})


class Prompt(Section):
    """How a note and a question become tokens: instruction, note, question, answer (prompts.py)."""

    instruction: str = ""  # system turn, or plain text before the note
    question: str = Field("\n{question}:", pattern=r"\{question\}")  # {question} and {options} are filled in
    answer_prefix: str = " "  # between question and answer when the model has no chat template
    max_tokens: int = Field(1024, ge=16)  # of note and question together
    keep: Literal["head", "tail"] = "head"  # which end of an over-long note stays; the question is never cut


class Model(Section):
    """The backbone: a hub id with a pinned revision, a local folder, or the run's own `pretrain` step."""

    path: str = Field("pretrain", min_length=1)
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")  # a commit: tags and branches move
    adapter: str | None = None  # a PEFT LoRA folder, merged on loading
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    chat: Literal["auto", "never"] = "auto"  # auto: use the chat template if the tokenizer has one


class Lora(Section):
    """LoRA adapters on all linear layers (code: r 32, alpha 64, dropout .05)."""

    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    dropout: Fraction = 0.05


class Training(Section):
    """One training stage: pretraining, reconstruction or fine-tuning; the loop is the same (training/loop.py)."""

    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: Fraction = 0.1  # share of the steps
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)  # stops earlier than `epochs` if it is less
    batch_rows: int = Field(16, ge=1)  # rows of one optimiser step, over all workers
    micro_batch_tokens: int = Field(16_384, ge=1)  # padded tokens of one forward pass
    clip: float = Field(1.0, gt=0)
    dropout: Fraction = 0.0
    lora: Lora | None = None  # None: all parameters
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on a GPU
    gradient_checkpointing: bool = False
    seed: int = 0
    eval_every: int | None = Field(None, ge=1)  # steps between dev evaluations; None: at the end
    checkpoint_every: int | None = Field(500, ge=1)  # steps; None: never, an interrupted stage starts anew


class Pretrain(Section):
    """A small decoder and its byte-level BPE tokenizer, from scratch."""

    family: ScratchFamily = "llama"  # of the architectures in models/families.py
    vocab_size: int = Field(2000, ge=300)  # without the mask sentinels, which come on top
    hidden_size: int = Field(128, ge=8)
    intermediate_size: int = Field(384, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    context: int = Field(512, ge=16)  # tokens; longer notes become several rows
    max_pieces: int | None = Field(None, ge=1)  # rows made of one note, from its head; None: all
    initializer_range: float = Field(0.02, gt=0)  # standard deviation of the random weights
    emphasis: dict[str, float] = {}  # words, with the space before them, whose prediction weighs more than 1
    training: Training = Training(learning_rate=2e-3, batch_rows=32)


class Attribution(Section):
    """Which words of a note matter for a task (attribution/)."""

    method: str = "grad_x_activation"  # a key of attribution.METHODS, or captum:<LayerMethod>
    target: Literal["label_margin", "label_logprob", "item_mid_max"] = "label_margin"
    layer: int | Annotated[float, Field(ge=0, le=1)] | Literal["all"] = 0  # 0..L; a float is a fraction of the depth
    # all: relevance at every valid layer is stored, in one pass; `layer` is then only what masking reads, so that a
    # search over layers attributes once
    keep: Literal["layer", "all"] = "layer"
    # Over the width. auto: l2 for grad_x_activation, whose sum is the derivative along a token's length, which the
    # first normalisation removes (EXPERIMENTS.md); sum for the other methods, because the sum is what completes.
    # kv_direct, occlusion, attention_mean, tfidf and random have no width to reduce.
    reduction: Literal["auto", "sum", "l2"] = "auto"
    sign: Literal["abs", "positive", "signed"] = "abs"
    word_reduction: WordReduction = "max"
    tasks_per_note: int | None = Field(2, ge=1)  # sampled per note, seeded; None: all tasks (code: 9)
    batch_tokens: int = Field(8192, ge=1)
    steps: int = Field(20, ge=1)  # of integrated gradients
    baseline: Literal["zero", "mean"] = "zero"  # of integrated gradients
    window: int = Field(1, ge=1)  # words deleted together by occlusion

    @property
    def norm(self) -> Literal["sum", "l2"]:
        """`reduction`, and what `auto` stands for."""
        if self.reduction != "auto":
            return self.reduction
        return "l2" if self.method in ("grad_x_activation", "captum:LayerGradientXActivation") else "sum"


class Hysteresis(Section):
    """Runs of words above `low` that hold one above `high`, after smoothing (code: 0.2, 0.4)."""

    low: Fraction = 0.2  # of the note's largest relevance
    high: Fraction = 0.4
    smooth: bool = True  # 3-tap Gaussian, sigma 1, reflecting ends


class SpanLengths(Section):
    """SpanBERT: geometric span lengths in words, cut off at `longest` (mean 3.8 words)."""

    p: float = Field(0.2, gt=0, le=1)
    longest: int = Field(10, ge=1)


class Pmi(Section):
    """Collocations masked whole (Levine et al. 2021)."""

    longest: int = Field(5, ge=2, le=5)  # words
    min_count: int = Field(10, ge=1)
    top_per_length: int = Field(5000, ge=1)  # n-grams kept of each length


class Selective(Section):
    """Selective masking (Gu et al. 2020): a word matters if deleting it costs the task more than `delta`."""

    source: Literal["tagger", "relevance"] = "tagger"  # words that mattered in labelled notes; or each note's own
    delta: float = Field(0.05, gt=0)  # a word matters above this share of the note's largest drop [ours; paper: .05]
    min_share: Fraction = 0.5  # tagger: hide types that mattered in at least this share of their occurrences


class Mslm(Section):
    """Entity-level and base-level masking with a loss that knows the difference (arXiv 2403.18025)."""

    terms: Literal["lexicon", "ner", "tficf", "attribution"] = "lexicon"  # where domain terms come from
    lexicon: str | None = None  # terms = lexicon: a text file, one term per line
    n_terms: int = Field(1000, ge=1)  # terms = tficf: how many words
    top_share: float = Field(0.05, gt=0, lt=1)  # terms = attribution: share of the vocabulary
    p_entity: Fraction = 0.5  # share of term occurrences that are hidden (code: .25 in scripts, 1 by default)
    p_base: Fraction = 0.15  # share of the other words (code: .075 .15 .225)
    max_ratio: float | None = Field(None, gt=0, lt=1)  # cap on hidden eligible words / eligible words
    weights: Literal["fixed", "inverse", "code"] = "fixed"
    entity_weight: float = Field(2.0, gt=0)  # weights = fixed
    base_weight: float = Field(1.0, gt=0)
    count_factor: bool = False  # code: an example's loss also grows with the number of hidden tokens


class Difference(Section):
    """Difference-Masking (arXiv 2305.14577): words near those that set the corpus apart."""

    anchors: int = Field(20, ge=1)  # code: 20 in the final scripts
    weight: Literal["rank", "similarity", "rank_global"] = "rank"
    gamma: float = Field(1.0, gt=0)  # weight = similarity: its exponent
    alpha: Fraction = 1.0  # 1 = difference only, 0 = uniform (code: off, or .1 .3 .5 .7)


class Faithfulness(Section):
    """`raypipe faithfulness`: methods x targets x layers on labelled dev notes (evaluation/faithfulness.py).

    All other settings of a method are those of `attribution`.
    """

    # Keys of attribution.METHODS or captum:<LayerMethod>, with `attribution.reduction: auto` or with another one
    # (`/sum`, `/l2`). `random` is always there.
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
    targets: tuple[Literal["label_margin", "label_logprob", "item_mid_max"], ...] = ("label_margin",)
    layers: tuple[Fraction, ...] = (0.0, 0.375, 0.75)  # fractions of the depth; a method skips those it cannot read
    questions: int = Field(200, ge=1)  # pairs of a note and a task, tasks and labels in turn
    top_share: float = Field(0.15, gt=0, lt=1)  # words compared with deciding words, where those are known
    bootstrap: int = Field(2000, ge=100)


class Masking(Section):
    """Which words are hidden and how the example is written (masking/). `profile` sets the defaults of the rest.

    Not every strategy reads every key: `masking.check.problems` refuses a key that was changed in vain.
    """

    profile: Literal["raypipe", "paper"] = "raypipe"
    strategy: str = "relevance"  # a key of masking.STRATEGIES
    selection: Literal["topk", "sample", "hysteresis"] = "topk"  # of the strategies that rank by relevance
    ratio: float = Field(0.15, gt=0, lt=1)  # hidden eligible words / eligible words
    match_ratio_to: Name | None = None  # the arm whose realised ratio this arm copies, note by note
    temperature: float = Field(0.5, gt=0)  # of selection = sample
    draws: int = Field(1, ge=1, le=1000)  # plans per note and task, used in turn by the epochs
    seed: int = 0
    stop_words: bool = True  # spare Italian, Spanish and English function words; negations are never spared
    phi_patterns: tuple[str, ...] = ()  # regular expressions; what they match is never a target
    max_span_words: int | None = Field(10, ge=1)  # longer spans are cut in two
    max_spans: int = Field(32, ge=1, le=64)  # of one `multi` example; further spans go to a further example
    format: Literal["single", "multi"] = "multi"
    condition: Literal["none", "item"] = "none"  # item: the question follows the masked note
    instruction: str = ""  # system turn, or plain text before the note
    sentinels: Literal["auto", "plain"] | tuple[str, ...] = "auto"  # auto: the family's reserved tokens if it has any
    prompt_loss: float = Field(0.0, ge=0, le=1)  # lambda: weight of the masked note's own tokens
    hysteresis: Hysteresis = Hysteresis()
    span: SpanLengths = SpanLengths()
    pmi: Pmi = Pmi()
    selective: Selective = Selective()
    mslm: Mslm = Mslm()
    difference: Difference = Difference()

    @field_validator("phi_patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns

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


class Statistics(Section):
    """Counts over the whole corpus, for the strategies that need them; made once per run (masking/statistics.py)."""

    # Words of general language in the corpus's language: a table with columns word and count (.parquet, .csv, .tsv), or
    # `pretraining`: count the notes of data.pretraining
    general_counts: Location | None = None
    # A local folder with a bidirectional encoder (BERT's family) whose view of single words takes the place of the
    # student's embeddings
    encoder: Location | None = None
    max_notes: int = Field(50_000, ge=1)  # notes that are counted, the first by hashed id
    min_notes: int = Field(5, ge=1)  # words of fewer notes are not kept: typos and names


class PseudoLabels(Section):
    """The scorer answers the tasks of unlabelled notes; the student learns the answers that it is sure of [ours].

    The paper compares with synthetic labels, but its recipe is not public; this is the usual one.
    """

    confidence: float = Field(0.9, gt=0, lt=1)  # least share of the chosen option among the options
    max_imbalance: float | None = Field(3.0, ge=1)  # answers kept of a class / of the task's rarest class; None: all


class Arm(Section):
    """One line of the comparison: how the student learns from unlabelled notes before it sees the labels."""

    masking: Masking | None = None  # None: no reconstruction
    pseudo_labels: PseudoLabels | None = None  # instead of masking: learn the scorer's own answers
    attribution: Attribution | None = None  # relevance of its own, instead of the section that all arms share
    # Of the reconstruction's rows, the share that are fine-tuning's own: masks and labels by turns, as rows of a length
    # share a step. They are added, so without `max_steps` the stage has more steps
    label_share: float = Field(0.0, ge=0, lt=1)
    start: Literal["backbone", "random"] = "backbone"  # random: the same architecture, untrained (a control)
    finetune: bool = True  # false: the backbone answers as it is (zero-shot)

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


class Resources(Section):
    """What the cluster gives each step. `auto` = one actor per GPU, or per two CPUs."""

    attribution_actors: int | Literal["auto"] = "auto"
    cpus_per_actor: float = Field(1.0, gt=0)
    training_workers: int = Field(1, ge=1)
    # After a lost worker, go on with as few as this (Ray Train restarts the group); None: wait for all of them
    min_training_workers: int | None = Field(None, ge=1)
    sharding: Literal["ddp", "fsdp2"] = "ddp"  # a replica on each worker, or parameters sharded over the workers
    ray: bool = True  # false: everything in this process, one step after the other; for what is small
    cpus_per_worker: float | Literal["auto"] = "auto"  # auto: the cores, shared by the arms that train at once
    use_gpu: bool | Literal["auto"] = "auto"
    rows_per_block: int = Field(256, ge=1)  # unit of parallelism, of retry and of resume
    concurrent_arms: int = Field(1, ge=1)
    no_progress_timeout_s: int = Field(900, ge=10)
    allow_unauthenticated_cluster: bool = False

    @model_validator(mode="after")
    def _min_within_max(self) -> Resources:
        if (self.min_training_workers or 1) > self.training_workers:
            raise ValueError("min_training_workers is more than training_workers")
        return self

    @property
    def workers(self) -> int | tuple[int, int]:
        """Training workers as Ray Train wants them: how many, or at least and at most."""
        fewest = self.min_training_workers
        return self.training_workers if fewest is None else (fewest, self.training_workers)


class Conformal(Section):
    """Prediction sets that hold the true label with probability 1 - alpha (evaluation/conformal.py)."""

    alpha: float = Field(0.1, gt=0, lt=1)
    score: Literal["lac", "aps"] = "lac"  # lac: smallest sets; aps: sets that grow where the model is unsure


class Probe(Section):
    """`raypipe probe`: what the frozen states of every layer say about each task (evaluation/probing.py).

    The backbone is always probed. `train`: the students after reconstruction, before they see a label (unless their arm
    has a `label_share`), which is what their masking taught. `finetune`: the final students; their states were fitted
    to the labels that the probe learns from, so that here cross-validation is too hopeful.
    """

    after: tuple[Literal["train", "finetune"], ...] = ("train", "finetune")
    arms: tuple[Name, ...] | None = None  # None: all
    layers: tuple[Fraction, ...] | Literal["all"] = "all"  # fractions of the depth
    pooling: tuple[Literal["last", "mean"], ...] = Field(("last", "mean"), min_length=1)
    head: Literal["logistic", "mlp256"] = "logistic"  # mlp256: the authors', one hidden layer of 256 (code)
    c: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)  # 1 / L2 penalty
    folds: int = Field(5, ge=2)  # of the cross-validation within the training notes that chooses c
    control: bool = True  # also learn random labels of first words, for selectivity
    batch_tokens: int = Field(8192, ge=1)


class Evaluation(Section):
    """How students answer: by length-normalised label log-probability (methods 5.2), unless `mode` says otherwise."""

    split: Split = "test"
    # generate: greedy decoding bound to the options. head: no label text; a classifier per task (probe.head, c, folds)
    # on the student's last state before the answer, fitted to the training labels after fine-tuning (and without,
    # for an arm with `finetune: false`)
    mode: Literal["label", "generate", "head"] = "label"
    conformal: Conformal | None = None  # calibrated on the dev labels; None: no prediction sets
    embeddings: bool = False  # also the line `embeddings_logistic`: the frozen backbone, read as `probe` says
    batch_tokens: int = Field(16_384, ge=1)
    bootstrap: int = Field(2000, ge=100)
    heat_maps: int = Field(0, ge=0)  # notes whose text the report shows: protected notes want 0


class Comparison(Section):
    """`raypipe compare`: the arms, repeated over seeds and label budgets (compare.py)."""

    # Each seed is its own subset of the labels, scorer, masks and reconstruction; `repeats` fine-tunings of each
    seeds: int = Field(3, ge=1)
    budgets: tuple[Annotated[int, Field(ge=2)], ...] = ()  # training labels per task, beside data.max_labelled
    pairs: tuple[tuple[Name, Name], ...] = ()  # (arm, reference) tested beside each arm against the first
    # Each seed makes its scorer and masks in one process, side by side with the others: for notes that one process
    # reads in minutes. False: one seed after the other, each on the whole cluster
    seeds_in_tasks: bool = False
    keep_models: bool = False  # of the students that differ from another in the order of fine-tuning alone


class Tune(Section):
    """`raypipe tune`: a search over settings (tuning/). What is searched stands in a file of tune_spaces/."""

    # Backbones, one study each: a local folder, a hub id with its commit (`id@<40 hex digits>`), `pretrain:<family>`;
    # none: that of the section `model`
    models: tuple[str, ...] = ()
    max_unlabelled: int | None = Field(None, ge=1)  # notes that trials learn from; None: data.max_unlabelled
    concurrent_trials: int | Literal["auto"] = "auto"  # auto: as many as the cores, or the shares of the GPUs
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float = Field(1.0, gt=0)  # if there is a GPU; less than 1: trials share it
    max_failures: int = Field(1, ge=0)  # times that a failed trial is tried again
    keep_trials: bool = False  # keep models and masked notes of each trial; predictions and settings stay in any case
    # Share of the grid's layers that a cheap proxy lets through (tuning/proxy.py); 1: measured, nothing left out
    proxy_keep: float | None = Field(None, gt=0, le=1)
    alone: int = Field(0, ge=0)  # trials of each model done again, with and without what is shared: what does it save?


class Config(Section):
    """A whole run. The resolved form is written to `<run>/config.yaml`."""

    name: Name = "run"
    runs: str = "runs"  # the folder of run directories
    seed: int = 0
    data: Data = Data()
    prompt: Prompt = Prompt()
    model: Model = Model()
    pretrain: Pretrain | None = None
    finetune: Training = Training()  # the scorer, and each student after reconstruction
    attribution: Attribution = Attribution()
    faithfulness: Faithfulness = Faithfulness()
    train: Training = Training()  # reconstruction
    repeats: int = Field(1, ge=1)  # fine-tunings of each student, which differ in order and initialisation
    statistics: Statistics = Statistics()
    arms: dict[Name, Arm] = {"sft": Arm(), "decselfmask": Arm(masking=Masking())}
    evaluation: Evaluation = Evaluation()
    probe: Probe = Probe()
    comparison: Comparison = Comparison()
    resources: Resources = Resources()
    tune: Tune = Tune()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as null in YAML; it means the defaults."""
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values
