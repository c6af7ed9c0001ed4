"""Heat maps name the true label and the answer as the model says it, and mark where the model stopped reading."""

from __future__ import annotations

import pytest

from raypipe.findings.heat_maps import heat_map
from raypipe.findings.page.heatmap import HeatMap, Panel, ranked, stretches
from raypipe.findings.page.html import html
from raypipe.findings.page.report import Report
from raypipe.notes.tasks import Task

TASK = Task("fever", "binary", "Ha febbre?", ("1", "0"), ("sì", "no"))
TEXT = "Ha febbre alta e tosse."
NOTE = {
    "note_id": "n1", "text": TEXT, "task_id": ["fever"], "predicted": ["0"], "margin": [0.25],
    "word_start": [0, 3, 10, 15, 17], "word_end": [2, 9, 14, 16, 22], "layers": [0],
    "relevance": [0.1, 2.0, -0.5, 0.0, 0.0], "n_tokens": 6, "n_cut_tokens": 4, "error": None,
    "plans": [{"arm": "a", "task_id": "fever", "draw": 0, "start": [3], "end": [9], "n_masked": 1, "n_eligible": 3}],
}  # fmt: skip


def test_the_caption_says_label_answer_and_cut() -> None:
    caption = heat_map(NOTE, TASK, [], None, "1").caption
    assert caption == (
        "true label: “sì” (label 1); the scorer answers “no” (label 0), 0.25 nats before the next; "
        "the model read 6 of the note's 10 tokens"
    )
    assert heat_map(NOTE, TASK, [], None, None).caption.startswith("true label: unknown")


def test_what_was_not_read_is_marked_and_has_no_relevance() -> None:
    drawn = heat_map(NOTE, TASK, [], None, None)
    assert drawn.read == (0, 14)
    assert [("".join(p.text for p in s.pieces), s.is_read) for s in stretches(drawn, drawn.panels[0])] == [
        ("Ha ", True),
        ("febbre", True),
        (" alta", True),
        (" e tosse.", False),
    ]
    words = {word.text: word for word in ranked(drawn)}
    assert [word.text for word in ranked(drawn)][:2] == ["febbre", "alta"]
    assert (words["febbre"].hidden_by, words["febbre"].relevance) == (("a",), 2.0)
    assert words["tosse"].relevance is None
    page = html(Report("x", heat_maps=(drawn,)))
    assert page.count("the model stopped reading here") == 1
    assert page.index("alta") < page.index("the model stopped reading here") < page.index("tosse")
    whole = heat_map({**NOTE, "n_cut_tokens": 0}, TASK, [], None, None)
    assert whole.read is None
    assert "the model stopped" not in html(Report("x", heat_maps=(whole,)))


def test_the_end_of_a_note_may_be_what_was_read() -> None:
    drawn = HeatMap("t", "ab cd", [(0, 2), (3, 5)], [Panel("x")], read=(3, 5))
    assert [s.is_read for s in stretches(drawn, drawn.panels[0])] == [False, True]
    assert "the model began to read here" in html(Report("x", heat_maps=(drawn,)))


@pytest.mark.parametrize("n", [3, 60])
def test_the_table_of_words_is_short(n: int) -> None:
    text = "parola " * n
    drawn = HeatMap("t", text, [(7 * i, 7 * i + 6) for i in range(n)], [Panel("x", [], [float(i) for i in range(n)])])
    assert len(ranked(drawn)) == min(n, 40)
    assert ranked(drawn)[0].relevance == n - 1


def test_the_legend_explains_what_is_there_and_no_more() -> None:
    of_sizes = {**NOTE, "relevance": [0.1, 2.0, 0.5, 0.0, 0.0], "n_cut_tokens": 0}
    plain = html(Report("x", heat_maps=(heat_map(of_sizes, TASK, [], None, None),)))
    signed = html(Report("x", heat_maps=(heat_map(NOTE, TASK, [(3, 9)], None, None),)))
    assert "Note n1: Ha febbre?" in plain
    for words in ("towards the prediction", "against it <", "crossed out", "underlined", "Known to decide"):
        assert words not in plain, "sizes alone say nothing for or against an answer"
        assert words in signed
    assert "would be hidden" in plain
