"""Every line of a table is explained, from the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.findings.meanings import meanings
from raypipe.masking.strategies import STRATEGIES
from raypipe.runs.names import EMBEDDINGS, SCORER, TFIDF
from tests.small_run import settings

ARMS = {
    "sft": {},
    "zero_shot": {"finetune": False},
    "random_init": {"start": "random"},
    "decselfmask": {"masking": {"ratio": 0.2}},
    "matched": {"masking": {"strategy": "random_word", "match_ratio_to": "decselfmask"}},
    "cpt": {"masking": {"strategy": "cpt"}},
    "pseudo": {"pseudo_labels": {}},
}


def test_each_arm_and_baseline_says_what_it_is(tmp_path: Path) -> None:
    said = meanings(settings(tmp_path, arms=ARMS), [*ARMS, TFIDF, EMBEDDINGS, SCORER])
    assert len(set(said.values())) == len(ARMS) + 3
    assert said["sft"] == "The backbone learns the labels, and nothing else."
    assert said["zero_shot"].startswith("The backbone as it is")
    assert "random weights" in said["random_init"]
    assert "the words that matter most to the scorer are hidden (20 % of the words)" in said["decselfmask"]
    assert "words at random are hidden (as many as decselfmask)" in said["matched"]
    assert "nothing hidden" in said["cpt"]
    assert "the scorer's sure answers" in said["pseudo"]
    assert said[TFIDF].startswith("No language model")


def test_a_share_is_named_only_where_it_is_read(tmp_path: Path) -> None:
    arms = {
        "small": {"masking": {"ratio": 0.075}},
        "paper": {"masking": {"profile": "paper"}},
        "mslm": {"masking": {"strategy": "mslm"}},
    }
    said = meanings(settings(tmp_path, arms=arms), arms)
    assert "(7.5 % of the words)" in said["small"]
    assert "%" not in said["paper"] + said["mslm"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_makes_a_sentence(tmp_path: Path, strategy: str) -> None:
    (said,) = meanings(settings(tmp_path, arms={"a": {"masking": {"strategy": strategy}}}), ["a"]).values()
    assert said.endswith("then it learns the labels.")
