"""Label scoring over token trees equals one forward pass per note, question and option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from raypipe.evaluation import scoring
from raypipe.evaluation.generation import END, decode, longer, narrowest_margin
from raypipe.evaluation.scoring import LabelScorer
from raypipe.models.loading import Loaded, cast_parameters
from raypipe.models.precision import float32_twin
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
        for question, (best, scores_C) in list(zip(note.questions, scores_Q, strict=True))[:4]:
            np.testing.assert_allclose(
                scores_C, [_alone(loaded, note, question, o) for o in question.option_ids], atol=2e-4
            )
            assert best == scores_C.argmax()


def _alone(loaded: object, note: object, question: object, option: tuple[int, ...]) -> float:
    prompt = [*note.prefix_ids, *question.suffix_ids]
    with torch.no_grad():
        log_p = loaded.model(input_ids=torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1)
    return float(np.mean([float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(option)]))


@pytest.mark.parametrize("mode", ["score", "generate"])
def test_borderline_answers_of_bfloat16_are_those_of_float32(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bfloat16 leaves a margin, its own numbers stay; elsewhere they are those of the same weights in float32."""
    rounded = tiny_loaded("llama")
    cast_parameters(rounded.model, torch.bfloat16)
    exact = float32_twin(rounded)
    encoder = PromptEncoder(rounded.tokenizer, Prompt(max_tokens=250), TASKS)
    notes = [encoder.encode(str(i), text, [task.id for task in TASKS]) for i, text in enumerate(TEXTS)]

    def answers(loaded: Loaded, bound: float) -> list[tuple[int, list[float]]]:
        monkeypatch.setattr(scoring, "BORDERLINE", bound)
        scorer = LabelScorer(loaded, 4000)
        if mode == "generate":
            of_notes = scorer.generate(notes, encoder.eos_id)
            return [(best, np.exp(log_p_C).tolist()) for of_note in of_notes for best, log_p_C in of_note]
        return [(best, score_C.tolist()) for of_note in scorer.score(notes) for best, score_C in of_note]

    in_float32, never, some, always = (
        answers(loaded, bound) for loaded, bound in ((exact, 0.0), (rounded, 0.0), (rounded, 0.1), (rounded, np.inf))
    )
    assert always == [(best, pytest.approx(scores, abs=1e-5)) for best, scores in in_float32]
    settled = [a != b for a, b in zip(some, never, strict=True)]
    assert 0 < sum(settled) < len(settled)
    close = [pytest.approx(scores, abs=1e-5) for _, scores in in_float32]
    assert all(mine == other for (_, mine), other, again in zip(some, close, settled, strict=True) if again)
    assert [best for best, _ in some] == [best for best, _ in in_float32]


OPTIONS = st.lists(st.sampled_from([5, 6, 7]), min_size=1, max_size=3).map(tuple)


@given(st.lists(OPTIONS, min_size=2, max_size=5, unique=True), st.data())
def test_no_smaller_change_than_the_margin_changes_the_answer(options: list[tuple[int, ...]], data: Any) -> None:
    """Every log-probability moves by a little less than half of the narrowest margin."""
    begins_another = longer(options)
    nodes = [
        [ids[: i + 1] for i in range(len(ids))] + [(*ids, END)] * (c in begins_another) for c, ids in enumerate(options)
    ]
    value = {node: data.draw(st.floats(-5, 0, width=32)) for of_option in nodes for node in of_option}
    log_p = [np.asarray([value[node] for node in of_option], np.float32) for of_option in nodes]
    step = 0.49 * min(narrowest_margin(options, log_p), 10.0)
    assume(step > 1e-3)
    moved = {node: v + data.draw(st.sampled_from([-step, step])) for node, v in value.items()}
    after = [np.asarray([moved[node] for node in of_option], np.float32) for of_option in nodes]
    assert decode(options, after)[0] == decode(options, log_p)[0]
