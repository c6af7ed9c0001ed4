"""What the arms ask to know of the whole corpus: counted by Ray (pipeline.py), put together here."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from raypipe.hashing import fingerprint
from raypipe.masking import Statistics
from raypipe.masking.corpus_needs import CorpusNeeds
from raypipe.masking.general import read_counts
from raypipe.masking.strategy import COUNTS, GENERAL, IMPORTANCE, TYPE_RELEVANCE, VECTORS
from raypipe.masking.terms import read_terms
from raypipe.masking.vectors import type_vectors
from raypipe.models import loading
from raypipe.models.encoder import encoder_vectors
from raypipe.notes import storage
from raypipe.records import versions
from raypipe.runs.names import CHOOSE_LABELS, SCORER, SHARED_COUNTS
from raypipe.settings import config
from raypipe.settings.arms import PRETRAINING
from raypipe.stream import pipeline
from raypipe.words import F32

if TYPE_CHECKING:
    from raypipe.runs.run import Run


def compute(run: Run, asks: CorpusNeeds) -> Statistics:
    """All that the arms ask for and nothing else. Word vectors are the backbone's, with which every student starts.

    Relevance by word is averaged over the output of the step `attribute`, which must be finished.
    """
    counted = _counted(run, asks) if COUNTS in asks.needs else Statistics()
    if VECTORS in asks.needs:
        counted = counted.with_vectors(_vectors(run.settings.statistics.encoder, run.backbone, counted.words))
    if TYPE_RELEVANCE in asks.needs:
        stored = run.needed("attribute").data
        counted = counted.with_relevance(pipeline.relevance_of_words(run.job, run.model(SCORER), stored))
    if IMPORTANCE in asks.needs:
        counted = counted.with_importance(pipeline.importance_of_words(run.job, run.model(SCORER), asks))
    for path in asks.lexicons:
        counted = counted.with_lexicon(path, read_terms(path))
    return counted


def _counted(run: Run, asks: CorpusNeeds) -> Statistics:
    """Counts that need no model. All runs on the same corpus share them."""
    folder = cache_folder(run, asks)
    with suppress(FileNotFoundError):  # `raypipe clean` of any run may delete it at any time
        return Statistics.load(folder)
    counted = Statistics.of_counts(pipeline.count_words(run.job, asks), run.settings.statistics.min_notes)
    if GENERAL in asks.needs:
        counted = counted.with_general(_general(run, asks))
    _publish(counted, folder)
    return counted


def cache_folder(run: Run, asks: CorpusNeeds) -> Path:
    """Where runs beside each other keep the counts of this corpus, by a fingerprint of all that they depend on."""
    settings = run.settings.statistics
    limits = {"max_notes": settings.max_notes, "min_notes": settings.min_notes}
    counted = {"longest": asks.longest, "phi_patterns": asks.phi_patterns}
    labels = {f"data.{key}" for key in CHOOSE_LABELS}  # other labels are chosen among the same notes
    of_corpus = {key: value for key, value in run.step("corpus").settings.items() if key not in labels}
    by = of_corpus | limits | counted | {"raypipe": versions()["raypipe"]}
    if GENERAL in asks.needs:
        path = settings.general_counts or PRETRAINING
        by["general"] = path if path == PRETRAINING else storage.listing(path, "statistics.general_counts")
    return Path(run.settings.runs).resolve() / SHARED_COUNTS / fingerprint(by)


def _publish(counted: Statistics, folder: Path) -> None:
    """Appears whole or not at all, and to its owner alone: these are words of notes."""
    with suppress(OSError):  # another run was faster, or is cleaned: this one has its counts
        folder.parents[1].mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as fresh:  # mode 0700
            counted.save(Path(fresh))
            Path(fresh).rename(folder)


def _vectors(encoder: str | None, backbone: config.Model, words: Sequence[str]) -> F32:
    """One vector per word: an encoder's, or the mean of the backbone's input embeddings."""
    if encoder is not None:
        return encoder_vectors(encoder, words)
    return type_vectors(words, loading.load_tokenizer(backbone), loading.embeddings(backbone))


def _general(run: Run, asks: CorpusNeeds) -> dict[str, int]:
    """Words of general language: the user's table, or the pretraining notes counted."""
    path = run.settings.statistics.general_counts or PRETRAINING
    if path != PRETRAINING:
        return read_counts(path)
    table = pipeline.count_words(run.job, asks, pretrains=True)
    words = table.filter(pc.equal(table["n"], 1))
    return dict(zip(words["gram"].to_pylist(), words["count"].to_pylist(), strict=True))
