"""What `raypipe check` says beside problems: notes that are cut, copies across splits, answers, questions, groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.models.prompts import PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.runs.checking.survey import Survey, survey
from raypipe.settings.config import Arm, Columns, Config, Data, Pretrain, Prompt, Training
from tests.tiny_models import TEXTS, tiny_tokenizer

FEVER = Task("fever", "binary", "Febbre?", ("1", "0"), ("sì", "no"))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """24 notes of six words and one of 300, in three splits."""
    texts = [f"Nota {i}. {TEXTS[i % 6]}" for i in range(24)] + ["dolore " * 300]
    notes = {"note_id": [f"n{i}" for i in range(25)], "text": texts, "who": [f"p{i}" for i in range(25)]}
    pq.write_table(pa.table(notes), tmp_path / "n.parquet")
    return Data(notes=str(tmp_path / "n.parquet"), columns=Columns(group_id="who"))


def _labels(n: int = 24) -> pa.Table:
    cells = [("fever", f"n{i}", str(i % 2), ("train", "dev", "test")[i % 3]) for i in range(n)]
    return rows.table([dict(zip(rows.LABELS.names, row, strict=True)) for row in cells], rows.LABELS)


def _survey(data: Data, max_tokens: int = 128, labels: pa.Table | None = None, **prompt: str) -> Survey:
    config = Config(data=data, prompt=Prompt(max_tokens=max_tokens, **prompt), finetune=Training(epochs=100))
    encoder = PromptEncoder(tiny_tokenizer(), config.prompt, [FEVER])
    return survey(config, [FEVER], labels if labels is not None else rows.LABELS.empty_table(), encoder)


def test_few_long_notes_are_a_line_and_many_a_warning(data: Data) -> None:
    assert any("prompt.max_tokens is 128: 1 of 25 notes are cut at their end" in line for line in _survey(data).lines)
    assert _survey(data).warnings == []
    (warning,) = _survey(data, max_tokens=30).warnings
    assert "25 of 25 notes are cut" in warning
    assert all("are cut" not in line for line in _survey(data, max_tokens=4096).lines)


def test_before_there_is_a_tokenizer_characters_are_counted(data: Data) -> None:
    out = survey(Config(data=data), [FEVER], rows.LABELS.empty_table(), None)
    assert "longest 2,100 characters" not in out.lines[0]
    assert "longest 2,100; tokens are counted once `raypipe pretrain`" in out.lines[0]


def test_copies_in_training_of_a_held_out_note_are_counted_and_not_quoted(tmp_path: Path, data: Data) -> None:
    assert _survey(data, labels=_labels()).warnings == []
    notes = pq.read_table(str(data.notes)).to_pylist()
    notes[0]["text"] = notes[1]["text"]  # n0 is for training, n1 for dev
    pq.write_table(pa.Table.from_pylist(notes), tmp_path / "n.parquet")
    (warning,) = _survey(data, labels=_labels()).warnings
    assert warning.startswith("1 of 8 training notes say nearly the same as one of 16 dev and test notes")
    assert not [word for word in notes[1]["text"].split() if len(word) > 8 and word in warning]


def test_without_patients_it_is_said_what_that_means(data: Data) -> None:
    (warning,) = _survey(data.model_copy(update={"columns": Columns()})).warnings
    assert warning.startswith("data.columns.group_id is not set")


def test_identifiers_are_counted_and_not_quoted(tmp_path: Path, data: Data) -> None:
    notes = pq.read_table(str(data.notes)).to_pylist()
    notes[0]["text"] += " Visto il 12/03/2021, tel. 347 1234567."
    notes[1]["text"] += " Controllo il 3 marzo 2020."
    pq.write_table(pa.Table.from_pylist(notes), tmp_path / "n.parquet")
    (warning,) = _survey(data).warnings
    assert warning.startswith("likely identifiers in 2 of the first 25 notes (date 2, phone 1): data.placeholders")
    assert "2021" not in warning
    marks = {"date": "[DATA]", "phone": "[TEL]", "email": "[EMAIL]"}
    out = _survey(data.model_copy(update={"placeholders": marks}))
    assert out.warnings == []
    assert "placeholders in the first 25 notes: [DATA] 2, [TEL] 1, [EMAIL] 0" in out.lines


def test_a_question_that_ends_twice(data: Data) -> None:
    (warning,) = _survey(data, question="\n{question}?").warnings
    assert warning == "1 task: the question ends in `??`, once from prompt.question (fever)"


def test_fine_tuning_of_a_few_steps_is_a_warning(data: Data) -> None:
    config = Config(data=data, finetune=Training(epochs=2, batch_rows=3), arms={"sft": Arm()})
    encoder = PromptEncoder(tiny_tokenizer(), config.prompt, [FEVER])
    (warning,) = survey(config, [FEVER], _labels(), encoder).warnings
    assert warning.startswith("finetune takes 6 optimiser steps on 8 labelled notes")
    zero_shot = config.model_copy(update={"arms": {"plain": Arm(finetune=False)}})
    assert survey(zero_shot, [FEVER], _labels(), encoder).warnings == []
    of_a_toy = config.model_copy(update={"pretrain": Pretrain()})
    assert survey(of_a_toy, [FEVER], _labels(), encoder).warnings == []
