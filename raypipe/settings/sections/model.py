"""The backbone, and how a note and a question become its prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.settings.sections.values import LocalPath, Section

Chat = Literal["auto", "bare", "never"]


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
