"""Every setting of a run: one frozen section per step, in the order in which a row meets them.

Imports neither torch nor ray, so a config can be checked on a laptop. Unknown keys are refused; `configfile.load`
turns a YAML file into a `Config` and says file, line and field of every problem at once. Defaults marked *paper* or
*code* are the authors' (arXiv 2606.09466 and its repository); all others are ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raypipe.words import WordReduction

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # becomes a directory name
Split = Literal["train", "dev", "test"]


class Section(BaseModel):
    """Base of all sections: nothing unknown gets in, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Columns(Section):
    """What the columns of the notes file are called."""

    note_id: str = "note_id"
    text: str = "text"
    group_id: str | None = None  # patient, ingredient, ...: never straddles self-supervision and test
    tags: str | None = None  # BIO tags, one per whitespace token, for masking.terms = ner


class Synthetic(Section):
    """The generated emergency notes of the demo (notes/synthetic.py)."""

    seed: int = 0
    n_labelled: int = Field(300, ge=8)
    n_unlabelled: int = Field(1000, ge=1)
    n_dev: int = Field(200, ge=8)
    n_test: int = Field(400, ge=8)
    n_pretraining: int = Field(4000, ge=1)
    difficulty: Fraction = 0.0


class Data(Section):
    """Where notes, labels and tasks come from. Paths: local or any pyarrow/fsspec URI; ${VARS} are expanded."""

    source: Literal["files", "synthetic"] = "files"
    notes: str | None = None  # .parquet, .jsonl or .csv; a file, a folder or a glob
    labels: str | None = None  # columns task_id, note_id, label, split
    tasks: str | None = None  # YAML (docs in tasks.py), or a table with one task per row
    pretraining: str | None = None  # notes for `pretrain`; None = the notes outside dev and test
    columns: Columns = Columns()
    synthetic: Synthetic = Synthetic()
    task_ids: tuple[str, ...] | None = None  # a subset of the tasks
    max_unlabelled: int | None = Field(None, ge=1)  # notes for self-supervision, the first by hashed id
    max_labelled: int | None = Field(None, ge=1)  # training notes with labels, nested by hashed id
    max_test: int | None = Field(None, ge=1)
    transductive: bool = False  # may notes of dev and test groups be used for self-supervision?
    on_duplicate_id: Literal["error", "keep_first"] = "error"
    max_chars: int = Field(200_000, ge=1)
    max_error_rate: Fraction = 0.05


class Prompt(Section):
    """How a note and a question become tokens: instruction, note, question, answer (prompts.py)."""

    instruction: str = ""  # system turn, or plain text before the note
    question: str = "\n{question}:"  # {question} and {options} are filled in
    answer_prefix: str = " "  # between question and answer when the model has no chat template
    max_tokens: int = Field(1024, ge=16)  # of note and question together
    keep: Literal["head", "tail"] = "head"  # which end of an over-long note stays; the question is never cut


class Model(Section):
    """The backbone: a hub id with a pinned revision, a local folder, or the run's own `pretrain` step."""

    path: str = "pretrain"
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
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    seed: int = 0
    eval_every: int | None = Field(None, ge=1)  # steps between dev evaluations; None: at the end
    checkpoint_every: int | None = Field(None, ge=1)  # steps; None: at the end


class Pretrain(Section):
    """A small Llama decoder and its byte-level BPE tokenizer, from scratch."""

    vocab_size: int = Field(2000, ge=300)
    hidden_size: int = Field(128, ge=8)
    intermediate_size: int = Field(384, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    context: int = Field(512, ge=16)
    training: Training = Training(learning_rate=2e-3, batch_rows=32)


class Attribution(Section):
    """Which words of a note matter for a task (attribution/)."""

    method: str = "grad_x_activation"  # a key of attribution.METHODS, or captum:<LayerMethod>
    target: Literal["label_margin", "label_logprob", "item_mid_max"] = "label_margin"
    layer: int | Annotated[float, Field(ge=0, le=1)] | Literal["all"] = 0  # 0..L; a float is a fraction of the depth
    reduction: Literal["sum", "l2"] = "sum"  # over the width
    sign: Literal["abs", "positive", "signed"] = "abs"
    word_reduction: WordReduction = "max"
    tasks_per_note: int | None = Field(2, ge=1)  # sampled per note, seeded; None: all tasks (code: 9)
    batch_tokens: int = Field(8192, ge=1)
    steps: int = Field(20, ge=1)  # of integrated gradients
    baseline: Literal["zero", "mean"] = "zero"  # of integrated gradients
    window: int = Field(1, ge=1)  # words deleted together by occlusion


class Masking(Section):
    """Which words are hidden and how the example is written (masking/). `profile` sets the defaults of the rest."""

    profile: Literal["raypipe", "paper"] = "raypipe"
    strategy: str = "relevance"  # a key of masking.STRATEGIES
    selection: Literal["topk", "sample", "hysteresis"] = "topk"
    ratio: float = Field(0.15, gt=0, lt=1)  # hidden eligible words / eligible words
    match_ratio_to: Name | None = None  # the arm whose realised ratio this arm copies, note by note
    temperature: float = Field(0.5, gt=0)
    format: Literal["single", "multi"] = "multi"
    condition: Literal["none", "item"] = "none"
    prompt_loss: float = Field(0.0, ge=0, le=1)  # lambda: weight of the masked note's own tokens
    draws: int = Field(1, ge=1)  # plans per note, used in turn by the epochs
    seed: int = 0


class Arm(Section):
    """One line of the comparison: how the student learns from unlabelled notes before it sees the labels."""

    masking: Masking | None = None  # None: labels only (SFT)


class Resources(Section):
    """What the cluster gives each step. `auto` = one actor per GPU, or per two CPUs."""

    attribution_actors: int | Literal["auto"] = "auto"
    cpus_per_actor: float = Field(1.0, gt=0)
    training_workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1.0, gt=0)
    use_gpu: bool | Literal["auto"] = "auto"
    rows_per_block: int = Field(256, ge=1)  # unit of parallelism, of retry and of resume
    concurrent_arms: int = Field(1, ge=1)
    no_progress_timeout_s: int = Field(900, ge=10)
    allow_unauthenticated_cluster: bool = False


class Evaluation(Section):
    """Scoring by length-normalised label log-probability (methods 5.2)."""

    split: Split = "test"
    batch_tokens: int = Field(16_384, ge=1)
    bootstrap: int = Field(2000, ge=100)
    heat_maps: int = Field(6, ge=0)  # notes shown in the report; 0 for protected notes


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
    train: Training = Training()  # reconstruction
    arms: dict[Name, Arm] = {"sft": Arm(), "decselfmask": Arm(masking=Masking())}
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """A section whose keys are all commented out reads as null in YAML; it means the defaults."""
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values
