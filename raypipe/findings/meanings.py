"""What each arm of a table is, in words: from the config."""

from __future__ import annotations

from collections.abc import Iterable

from raypipe.masking.requirements import reads
from raypipe.masking.strategies import STRATEGIES
from raypipe.runs.names import EMBEDDINGS, SCORER, TFIDF
from raypipe.settings.config import Arm, Config

BASELINES = {
    TFIDF: "No language model: logistic regression on counts of words and word pairs, learned from the same labels.",
    EMBEDDINGS: "No fine-tuning: logistic regression on what the backbone makes of a note.",
    SCORER: "The model fine-tuned on labels alone, whose relevance decides what is hidden; here it is no arm.",
}
WAYS = {
    "relevance": "the words that matter most to the scorer",
    "least_relevant": "the words that matter least to the scorer",
    "shuffled_relevance": "words by relevance that was shuffled",
    "random_word": "words at random",
    "random_token": "tokens at random",
    "span": "runs of words at random",
}


def meanings(settings: Config, names: Iterable[str]) -> dict[str, str]:
    """Name of a line of the table -> what it is."""
    return {
        name: _of_arm(settings.arms[name], settings) if name in settings.arms else BASELINES.get(name, "")
        for name in names
    }


def _of_arm(arm: Arm, settings: Config) -> str:
    start = "The backbone" if arm.start == "backbone" else "The backbone's architecture with random weights"
    if not arm.finetune:
        return f"{start} as it is: it has learned nothing of these tasks."
    if arm.masking is not None:
        strategy, matched = arm.masking.strategy, arm.masking.match_ratio_to
        if strategy.startswith("cpt"):
            return f"{start} first reads the unlabelled notes on, nothing hidden; then it learns the labels."
        share = ""  # some strategies and profiles name none
        if matched:
            share = f" (as many as {matched})"
        elif "ratio" in reads(arm.masking, STRATEGIES[strategy]):
            share = f" ({100 * arm.masking.ratio:.3g} % of the words)"
        way = WAYS.get(strategy, f"words that the strategy {strategy} picks")
        own = "" if arm.attribution is None else f", by its own attribution ({arm.attribution.method})"
        hidden = f"{way} are hidden{share}{own}"
        return f"{start} first fills in unlabelled notes in which {hidden}; then it learns the labels."
    if arm.pseudo_labels is not None:
        return f"{start} first learns the scorer's sure answers on unlabelled notes; then it learns the labels."
    return f"{start} learns the labels, and nothing else."
