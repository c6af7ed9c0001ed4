"""What an arm hides, and what is relevant, as spans for an annotation tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raypipe import cli
from raypipe.errors import InputError
from raypipe.findings.spans import Hidden, Relevant, export
from tests.findings.test_attributions import TEXT, finished_step, masked_row


@pytest.fixture
def run(tmp_path: Path) -> Path:
    later = {"arm": "a", "task_id": "tosse", "draw": 1, "start": [0], "end": [6], "kind": [0]}
    redrawn = masked_row("n2")
    redrawn["plans"] = [*redrawn["plans"], {**later, "n_masked": 1, "n_eligible": 4}]  # type: ignore[misc]
    finished_step(tmp_path / "run", [masked_row("n1"), redrawn])
    return tmp_path / "run"


def _tasks(path: Path) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads(path.read_text())
    return tasks


def test_hidden_words_for_label_studio(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "spans.json"
    assert export(run, out, "label-studio", Hidden("a")) == (2, 2)
    first, second = _tasks(out)
    assert first["data"] == {"text": TEXT, "note_id": "n1"}
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "hidden by a"
    (region,) = prediction["result"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("labels", "label", "text")
    assert region["value"] == {"start": 16, "end": 21, "text": "tosse", "labels": ["tosse"]}
    assert second["predictions"] == first["predictions"], "of redrawn plans, the first"


def test_relevant_words_for_doccano(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "spans.jsonl"
    # at layer 0: febbre has relevance -3 -2 -1 0, so no word of it; tosse 5 6 7 8
    assert export(run / "mask", out, "doccano", Relevant(50)) == (2, 4)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[0] == {"text": TEXT, "label": [[13, 15, "tosse"], [16, 21, "tosse"]], "note_id": "n1"}
    assert export(run, tmp_path / "of_task", "doccano", Relevant(50, "febbre")) == (2, 0)


def test_no_spans_is_a_line_and_no_file(run: Path, tmp_path: Path) -> None:
    for which in (Hidden("b"), Hidden("a", "febbre"), Relevant(10, "dispnea")):
        with pytest.raises(InputError, match="no note has words"):
            export(run, tmp_path / "out", "doccano", which)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_command_says_what_holds_note_text(run: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, [*arguments], catch_exceptions=False)
        return " ".join(result.output.split())

    spans = ("export", "--config", str(run), "--what", "spans", "--out", str(tmp_path / "s.jsonl"))
    assert "2 spans over 2 notes; it holds note text" in said(*spans, "--to", "doccano", "--arm", "a")
    assert "2 notes; left out, because nobody annotated them: 0" in said(
        "import-spans", str(tmp_path / "s.jsonl"), "--out", str(tmp_path / "notes.parquet")
    )
    table = ("export", "--config", str(run), "--what", "attributions", "--out", str(tmp_path / "a.parquet"))
    assert said(*table).endswith("a.parquet: 32 rows of 2 notes")
    for wrong in ((*spans, "--arm", "a"), (*spans, "--to", "doccano"), (*table, "--top", "5")):
        with pytest.raises(InputError, match="--what spans"):
            said(*wrong)
