"""Relevance against known words, among the words that masking may hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.errors import InputError
from raypipe.evaluation.agreement import AnnotatedRelevance, agreement
from raypipe.findings.known_words import cases
from raypipe.settings.config import Masking
from raypipe.words import word_spans

TEXT = "Nega febbre e tosse oggi"


def _cases(
    folder: Path, layer: int | None = None, masking: Masking | None = None, **note: Any
) -> list[AnnotatedRelevance]:
    words_W2 = word_spans(TEXT)
    relevance_QKW = np.zeros((2, 2, 5), dtype=np.float16)
    relevance_QKW[0, 1] = [0.1, -0.9, 0, 0.3, 0]
    relevance_QKW[1, 0, 0] = 0.5
    whole = {
        "note_id": "n",
        "text": TEXT,
        "task_id": ["fever", "cough"],
        "word_start": words_W2[:, 0].tolist(),
        "word_end": words_W2[:, 1].tolist(),
        "layers": [0, 3],
        "relevance": relevance_QKW.ravel().tolist(),
        "n_cut_tokens": 0,
    }
    pq.write_table(rows.table([whole | note, {"note_id": "broken", "error": "E_NULL"}], rows.MASKED), folder / "m")
    deciding = {("n", "fever"): [(20, 24)]}
    return list(cases(deciding, folder / "m", layer, masking or Masking()))


def test_stop_words_do_not_count(tmp_path: Path) -> None:
    fever, cough = _cases(tmp_path, layer=3)
    assert fever.relevance_W == pytest.approx([0.1, -0.9, 0.3, 0], abs=1e-3)  # "e" is nobody's choice
    assert fever.is_deciding_W.tolist() == [False, False, False, True]  # "oggi" was seen, if of no relevance
    assert not cough.is_deciding_W.any()
    assert _cases(tmp_path)[0].relevance_W.tolist() == [0, 0, 0, 0]  # the lowest layer


def test_words_that_were_cut_do_not_count(tmp_path: Path) -> None:
    (fever, _) = _cases(tmp_path, layer=3, n_cut_tokens=4)
    assert fever.relevance_W == pytest.approx([0.1, -0.9, 0.3], abs=1e-3)


def test_protected_words_do_not_count(tmp_path: Path) -> None:
    (fever, _) = _cases(tmp_path, layer=3, masking=Masking(phi_patterns=("febbre",)))
    assert fever.relevance_W == pytest.approx([0.1, 0.3, 0], abs=1e-3)


def test_a_layer_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is 7"):
        _cases(tmp_path, layer=7)


def test_relevance_that_only_avoids_stop_words_is_no_better_than_chance(tmp_path: Path) -> None:
    """One content word in three decides; relevance is random on content words and 0 on the others."""
    rng, notes, deciding = np.random.default_rng(0), [], {}
    text = "febbre e tosse e dispnea e " * 4
    words_W2 = word_spans(text)
    content_W = np.arange(len(words_W2)) % 2 == 0
    for n in range(150):
        start, end = words_W2[rng.choice(np.flatnonzero(content_W), 4, replace=False)].T
        deciding[f"n{n}", "t"] = list(zip(start.tolist(), end.tolist(), strict=True))
        notes.append(
            {"note_id": f"n{n}", "text": text, "task_id": ["t"], "layers": [0], "n_cut_tokens": 0,
             "word_start": words_W2[:, 0].tolist(), "word_end": words_W2[:, 1].tolist(),
             "relevance": (rng.random(len(words_W2)) * content_W).tolist()}
        )  # fmt: skip
    pq.write_table(rows.table(notes, rows.MASKED), tmp_path / "m")
    measured = agreement(list(cases(deciding, tmp_path / "m", None, Masking())), 0.2)
    assert measured is not None
    assert measured.chance == pytest.approx(1 / 3)
    assert measured.lift_interval[0] < 0 < measured.lift_interval[1]
