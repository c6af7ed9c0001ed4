"""What the model will read, on a made-up note or on the one that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import InputError
from raypipe.findings.preview import preview
from raypipe.runs.project import CONFIG, Named, propose, write
from raypipe.runs.run import Run
from raypipe.settings import configfile
from tests.exports import wide_export
from tests.tiny_models import tiny_model, tiny_tokenizer

ANSWERS = ("sì", "no")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a tiny model of the user's own."""
    folder = tmp_path_factory.mktemp("project")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    proposal = propose(str(wide_export(folder / "export.csv")), None, Named(answers=ANSWERS))
    write(folder / "p", proposal, str(folder / "model"), ANSWERS)
    return folder / "p" / CONFIG


def _page(project: Path, overrides: tuple[str, ...] = (), **which: Any) -> str:
    return preview(Run(configfile.load(project, overrides)), **which)


def test_a_made_up_note_as_text_and_as_tokens(project: Path) -> None:
    page = _page(project)
    assert page.startswith("a made-up note (one of your own: --note ID)\ntask febbre_38 (binary)")
    assert "Answer the question about the clinical note." in page
    assert "Febbre > 38? (sì, no)" in page
    assert "answer for label '1', 'sì'" in page
    assert " of 256 tokens" in page
    assert "a masked example of the arm decselfmask; words are drawn at random here, in the run by relevance" in page
    assert "<mask_1>" in page.partition("--- a masked example")[2]
    assert "R00" not in page, "no note of the user's own"


def test_a_named_note_is_shown_and_it_is_said_why(project: Path) -> None:
    page = _page(project, note_id="R0003", task_id="dispnea")
    assert page.startswith("note R0003: its text is shown, because you named it\ntask dispnea")
    assert "Dispnea? (SÌ, NO)" in page


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ({"note_id": "X"}, "--note: no note X in data.notes"),
        ({"task_id": "x"}, "--task: no task x; there are febbre_38"),
    ],
)
def test_what_is_not_there(project: Path, which: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _page(project, **which)


def test_every_way_of_masking_can_be_shown(project: Path) -> None:
    for masking in ("{profile: paper}", "{condition: item, ratio: 0.3}", "{strategy: mslm, mslm: {terms: tficf}}"):
        page = _page(project, (f"arms={{a: {{masking: {masking}}}}}",))
        assert "tokens, of which" in page.partition("a masked example of the arm a")[2], masking


def test_an_arm_that_masks_nothing_shows_no_example(project: Path) -> None:
    assert "masked example" not in _page(project, ("arms={sft: {}}",))


def test_a_cut_is_counted(project: Path) -> None:
    assert "tokens of the note are cut" in _page(project, ("prompt.max_tokens=80",))
    with pytest.raises(InputError, match="leaves no room"):
        _page(project, ("prompt.max_tokens=16",))


def test_before_pretraining_there_is_text_alone(project: Path) -> None:
    page = _page(project, ("model={path: pretrain}", "pretrain={}"))
    assert "Febbre > 38? (sì, no)[ sì |  no]" in page
    assert "tokens: once `raypipe pretrain` has made the tokenizer" in page


def test_a_model_that_is_not_there_is_one_line(project: Path) -> None:
    with pytest.raises(InputError, match="model"):
        _page(project, ("model.path=/absent",))
