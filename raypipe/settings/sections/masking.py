"""Masking: the strategies, their own sections, and the counts of the corpus that some of them need."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from raypipe.settings.sections.values import Fraction, LocalPath, Name, Pattern, Section


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
    """Selective masking (Gu et al. 2020): a word matters if deleting it costs the task much."""

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
