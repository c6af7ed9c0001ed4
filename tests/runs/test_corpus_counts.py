"""Counts that runs beside each other share may go at any time. What is counted: stream/test_strategies.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.masking import Statistics
from raypipe.masking.corpus_needs import CorpusNeeds
from raypipe.masking.counting import GRAMS
from raypipe.masking.strategy import COUNTS
from raypipe.runs import corpus_counts
from raypipe.runs.run import Run
from raypipe.stream import pipeline
from tests.small_run import settings

ASKS = CorpusNeeds(frozenset({COUNTS}), 1, (), (), 0.0)
COUNTED = pa.table([["febbre"], [1], [9], [9]], schema=GRAMS)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that counts are shared in."""
    monkeypatch.setattr(corpus_counts, "cache_folder", lambda *_: tmp_path / "runs/.cache/statistics/a1")
    return tmp_path / "runs/.cache/statistics/a1"


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda folder: (folder / "ngrams.parquet").unlink()])
def test_counts_that_are_deleted_while_they_are_read_are_made_again(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: Callable[[Path], None]
) -> None:
    times: list[Path] = []

    def count(*_: object) -> pa.Table:
        times.append(shared)
        return COUNTED

    monkeypatch.setattr(pipeline, "count_words", count)
    run = Run(settings(tmp_path / "runs", statistics__min_notes=1))
    monkeypatch.setattr(Run, "job", None)
    first = corpus_counts._counted(run, ASKS)
    assert corpus_counts._counted(run, ASKS).words == first.words == ("febbre",)
    assert len(times) == 1
    gone(shared)
    assert corpus_counts._counted(run, ASKS).words == first.words
    assert len(times) == 2
    assert [path.name for path in shared.parent.iterdir()] == [shared.name], "nothing half is left beside them"


def test_counts_whose_place_is_deleted_while_they_are_written_are_no_error(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Statistics.of_counts(COUNTED, 1)
    save = Statistics.save

    def and_clean(self: Statistics, folder: Path) -> None:
        save(self, folder)
        shutil.rmtree(shared.parents[1])

    monkeypatch.setattr(Statistics, "save", and_clean)
    corpus_counts._publish(counted, shared)
    assert not shared.exists()
