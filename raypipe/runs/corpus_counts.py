"""What the arms ask to know of the whole corpus: counted by Ray (pipeline.py), put together here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from raypipe.notes import storage
from raypipe.settings import config
from raypipe.stream import pipeline
from raypipe.settings.arms import PRETRAINING
from raypipe.notes.corpus import Corpus
from raypipe.hashing import fingerprint
from raypipe.masking import CorpusStatistics
from raypipe.masking.corpus_needs import CorpusNeeds
from raypipe.masking.general import read_counts
from raypipe.masking.strategy import COUNTS, GENERAL, IMPORTANCE, TYPE_RELEVANCE, VECTORS
from raypipe.masking.terms import read_terms
from raypipe.masking.vectors import type_vectors
from raypipe.models import loading
from raypipe.models.encoder import encoder_vectors
from raypipe.runs.folder import settings_of, versions
from raypipe.words import Floats


def compute(
    settings: config.Config,
    corpus: Corpus,
    asked: CorpusNeeds,
    backbone: config.Model,
    scorer: config.Model,
    attributed: Path,
    cluster: Any,
) -> CorpusStatistics:
    """All that `asked` names and nothing else. Word vectors are the backbone's, with which every student starts.

    `attributed` is the output of `attribute`, and must be there if TYPE_RELEVANCE is asked for.
    """
    known = _counted(settings, corpus, asked, cluster) if COUNTS in asked.needs else CorpusStatistics()
    if VECTORS in asked.needs:
        known = known.with_vectors(_vectors(settings.statistics.encoder, backbone, known.words))
    if TYPE_RELEVANCE in asked.needs:
        known = known.with_relevance(pipeline.relevance_of_words(settings, corpus, scorer, attributed, cluster))
    if IMPORTANCE in asked.needs:
        known = known.with_importance(pipeline.importance_of_words(settings, corpus, scorer, asked, cluster))
    for path in asked.lexicons:
        known = known.with_lexicon(path, read_terms(path))
    return known


def _counted(settings: config.Config, corpus: Corpus, asked: CorpusNeeds, cluster: Any) -> CorpusStatistics:
    """What passes over all notes count, no model involved: every run on the same corpus shares it."""
    folder = cache_folder(settings, corpus, asked)
    if folder.exists():
        return CorpusStatistics.load(folder)
    counts = pipeline.count_words(settings, corpus, asked, cluster)
    known = CorpusStatistics.of_counts(counts, settings.statistics.min_notes)
    if GENERAL in asked.needs:
        known = known.with_general(_general(settings, corpus, asked, cluster))
    _publish(known, folder)
    return known


def cache_folder(settings: config.Config, corpus: Corpus, asked: CorpusNeeds) -> Path:
    """Where runs beside each other keep the counts of this corpus, by a fingerprint of all that they depend on."""
    limits = {"max_notes": settings.statistics.max_notes, "min_notes": settings.statistics.min_notes}
    counted = {"longest": asked.longest, "phi_patterns": asked.phi_patterns}
    by = settings_of("corpus", settings, corpus.listing) | limits | counted | {"raypipe": versions()["raypipe"]}
    if GENERAL in asked.needs:
        path = settings.statistics.general_counts or PRETRAINING
        by["general"] = path if path == PRETRAINING else storage.listing(path, "statistics.general_counts")
    return Path(settings.runs).resolve() / ".cache" / "statistics" / fingerprint(by)


def _publish(known: CorpusStatistics, folder: Path) -> None:
    """Appears whole or not at all, and to its owner alone: these are words of notes."""
    folder.parents[1].mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))  # mode 0700
    known.save(fresh)
    try:
        fresh.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(fresh)


def _vectors(encoder: str | None, backbone: config.Model, words: Sequence[str]) -> Floats:
    """One vector per word: an encoder's, or the mean of the backbone's input embeddings."""
    if encoder is not None:
        return encoder_vectors(encoder, words)
    return type_vectors(words, loading.load_tokenizer(backbone), loading.embeddings(backbone))


def _general(settings: config.Config, corpus: Corpus, asked: CorpusNeeds, cluster: Any) -> dict[str, int]:
    """Words of general language: the user's table, or the pretraining notes counted."""
    path = settings.statistics.general_counts or PRETRAINING
    if path != PRETRAINING:
        return read_counts(path)
    table = pipeline.count_words(settings, corpus, asked, cluster, pretrains=True)
    words = table.filter(pc.equal(table["n"], 1))
    return dict(zip(words["gram"].to_pylist(), words["count"].to_pylist(), strict=True))
