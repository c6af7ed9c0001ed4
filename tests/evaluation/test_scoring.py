"""Label scoring over token trees equals one forward pass per note, question and option."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.evaluation.scoring import LabelScorer
from raypipe.models.prompts import PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings.config import Prompt
from tests.tiny_models import CONFIGS, TEXTS, tiny_loaded

TASKS = [
    Task("one", "binary", "febbre", ("1", "0"), ("a", "b")),  # options of one token
    Task("many", "multiclass", "tosse da ieri", ("x", "y", "z"), ("sì, presente", "no", "non noto")),
    *(Task(f"t{i}", "binary", f"domanda {i}", ("1", "0"), ("sì", "no")) for i in range(40)),  # more than one row
]


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("batch_tokens", [1, 4000])
def test_equals_separate_prompts(family: str, batch_tokens: int) -> None:
    loaded = tiny_loaded(family)
    encoder = PromptEncoder(loaded.tokenizer, Prompt(max_tokens=250), TASKS)
    chosen = [["one", "many"], ["many"], ["one", *(f"t{i}" for i in range(40))]]
    notes = [encoder.encode(str(i), TEXTS[i], tasks) for i, tasks in enumerate(chosen)]
    scores = LabelScorer(loaded, batch_tokens).score(notes)
    for note, scores_Q in zip(notes, scores, strict=True):
        assert len(scores_Q) == len(note.questions)
        for question, scores_C in list(zip(note.questions, scores_Q, strict=True))[:4]:
            np.testing.assert_allclose(
                scores_C, [_alone(loaded, note, question, o) for o in question.option_ids], atol=2e-4
            )


def _alone(loaded: object, note: object, question: object, option: tuple[int, ...]) -> float:
    prompt = [*note.prefix_ids, *question.suffix_ids]
    with torch.no_grad():
        log_p = loaded.model(input_ids=torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1)
    return float(np.mean([float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(option)]))
