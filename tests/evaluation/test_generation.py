"""Decoding bound to the options, read off the token tree, equals a model that generates under the same constraint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypipe.evaluation.generation import decode, longer
from raypipe.evaluation.scoring import LabelScorer
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, PromptEncoder, Question
from raypipe.notes.tasks import Task
from raypipe.settings.config import Prompt
from tests.tiny_models import CONFIGS, TEXTS, tiny_loaded

TASKS = [
    Task("one", "binary", "febbre", ("1", "0"), ("a", "b")),
    Task("begins", "multiclass", "decorso", ("x", "y", "z"), ("acuta", "acuta grave", "acuta lieve")),
    Task("many", "multiclass", "tosse", ("a", "b", "c", "d"), ("sì, presente", "sì, da ieri", "no", "non noto")),
]


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_equals_constrained_generation(family: str) -> None:
    loaded = tiny_loaded(family)
    encoder = PromptEncoder(loaded.tokenizer, Prompt(max_tokens=200), TASKS)
    notes = [encoder.encode(str(i), text, [task.id for task in TASKS]) for i, text in enumerate(TEXTS)]
    found = LabelScorer(loaded, 4000).generate(notes, encoder.eos_id)
    answers = set()
    for note, of_note in zip(notes, found, strict=True):
        for question, (chosen, log_p_C) in zip(note.questions, of_note, strict=True):
            answers.add((question.task_id, chosen))
            said = _generate(loaded, note, question)
            assert said == question.option_ids[chosen]
            assert np.exp(log_p_C).sum() == pytest.approx(1, abs=1e-5)
    assert len(answers) > len(TASKS)  # the constraint is not all that decides


def _generate(loaded: Loaded, note: EncodedNote, question: Question) -> tuple[int, ...]:
    """The library's own greedy decoding with the same trie."""
    prompt = [*note.prefix_ids, *question.suffix_ids]
    end = loaded.tokenizer.eos_token_id

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        said = tuple(ids[len(prompt) :].tolist())
        rest = [option[len(said) :] for option in question.option_ids if option[: len(said)] == said]
        return [more[0] if more else end for more in rest] or [end]

    out = loaded.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        prefix_allowed_tokens_fn=allowed,
        max_new_tokens=max(map(len, question.option_ids)) + 1,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    said = out[0, len(prompt) :].tolist()
    return tuple(said[: said.index(end)] if end in said else said)


def test_single_tokens_are_the_argmax_of_label_scoring() -> None:
    loaded = tiny_loaded()
    encoder = PromptEncoder(loaded.tokenizer, Prompt(max_tokens=200), TASKS)
    notes = [encoder.encode(str(i), text, ["one"]) for i, text in enumerate(TEXTS)]
    short = [_single(note) for note in notes]
    scorer = LabelScorer(loaded, 4000)
    generated, scored = scorer.generate(short, encoder.eos_id), scorer.score(short)
    assert {chosen for ((chosen, _),) in generated} == {0, 1}
    for ((chosen, log_p_C),), ((best, scores_C),) in zip(generated, scored, strict=True):
        assert chosen == best == scores_C.argmax()
        assert log_p_C[0] - log_p_C[1] == pytest.approx(scores_C[0] - scores_C[1], abs=1e-5)  # the same margin: AUC


def _single(note: EncodedNote) -> EncodedNote:
    """With two options of one token."""
    (question,) = note.questions
    return EncodedNote(
        note.note_id,
        note.prefix_ids,
        note.note_start,
        note.offsets_N2,
        0,
        (Question("one", question.suffix_ids, ((70,), (71,))),),
    )


def test_greedy_decides_at_the_first_token() -> None:
    """Label scoring takes the best whole; greedy decoding may be led away from it by the first token."""
    options = [(1, 2), (3, 4)]
    log_p = [np.log([0.6, 0.01]), np.log([0.4, 0.9])]
    chosen, constrained_C = decode(options, log_p)
    means = [values.mean() for values in log_p]
    assert (chosen, int(np.argmax(means))) == (0, 1)
    assert np.exp(constrained_C) == pytest.approx([0.6, 0.4])  # the second tokens are forced


def test_greedy_need_not_be_the_likeliest_sequence() -> None:
    options = [(1, 2), (1, 3), (4,)]
    log_p = [np.log([0.55, 0.2]), np.log([0.55, 0.2]), np.log([0.45])]
    chosen, constrained_C = decode(options, log_p)
    assert chosen == 0
    assert np.exp(constrained_C) == pytest.approx([0.275, 0.275, 0.45])


@pytest.mark.parametrize(("end", "go_on", "expected"), [(0.3, 0.2, 0), (0.1, 0.2, 1)])
def test_an_option_that_begins_another(end: float, go_on: float, expected: int) -> None:
    options = [(1,), (1, 2)]
    assert longer(options) == {0: 1}
    chosen, constrained_C = decode(options, [np.log([0.5, end]), np.log([0.5, go_on])])
    assert chosen == expected
    assert np.exp(constrained_C) == pytest.approx(np.asarray([end, go_on]) / (end + go_on))


@st.composite
def tries(draw: Callable) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], float]]:
    options = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), min_size=1, unique=True))
    paths = sorted({(*ids, -1)[:i] for ids in options for i in range(1, len(ids) + 2)})
    # in steps that survive normalising in float32
    return options, {path: draw(st.integers(-320, 0)) / 64 for path in paths}


@given(tries())
def test_walk_over_any_trie(trie: tuple[list[tuple[int, ...]], dict[tuple[int, ...], float]]) -> None:
    options, value = trie
    log_p = [np.asarray([value[(*ids, -1)[: i + 1]] for i in range(len(ids) + 1)], np.float32) for ids in options]
    chosen, constrained_C = decode(options, log_p)
    said: tuple[int, ...] = ()
    while said not in options or any(o[: len(said)] == said != o for o in options):
        steps = {(*ids, -1)[: len(said) + 1] for ids in options if ids[: len(said)] == said}
        best = max(sorted(steps), key=lambda path: value[path])
        if best[-1] == -1:
            break
        said = best
    ties = len(set(value.values())) < len(value)
    assert ties or options[chosen] == said
    assert np.exp(constrained_C).sum() == pytest.approx(1, abs=1e-4)
