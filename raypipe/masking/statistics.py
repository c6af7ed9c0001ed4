"""Statistics of the whole corpus that strategies need: word counts, collocations, typical words, word vectors.

They are computed once per corpus from the tables of masking/counting.py and then read by every worker. Words in fewer
than `min_notes` notes are left out: they are typos and names, which must not leave the notes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.masking.stopwords import STOP_WORDS
from raypipe.words import F32, F64, I64

MIN_DOCUMENT_FREQUENCY = 5  # notes that a word must occur in to be listed


@dataclass(frozen=True)
class Statistics:
    """Statistics of one corpus. V are its words in alphabetical order."""

    words: tuple[str, ...] = ()
    count_V: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    n_words: int = 0  # words of the corpus, rare ones included
    ngrams: Mapping[str, int] = field(default_factory=dict)  # runs of two and more words -> occurrences
    general_V: I64 | None = None  # occurrences in general language
    n_general: tuple[int, int] = (0, 0)  # words and word types of general language
    relevance_V: F64 | None = None  # mean relevance; NaN for words outside what the scorer saw
    important_V: F64 | None = None  # share of its occurrences in labelled notes that mattered; NaN as above
    vectors_VD: F32 | None = None
    lexicons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # path in the config -> its terms

    @classmethod
    def of_counts(cls, counts: pa.Table, min_notes: int = MIN_DOCUMENT_FREQUENCY) -> Statistics:
        """From the merged tables of `count_block`."""
        single = pc.equal(counts["n"], 1)
        n_words = pc.sum(counts.filter(single)["count"]).as_py() or 0
        frequent = counts.filter(pc.greater_equal(counts["n_notes"], min_notes))
        words = frequent.filter(pc.equal(frequent["n"], 1)).sort_by("gram")
        ngrams = frequent.filter(pc.greater(frequent["n"], 1))
        return cls(
            words=tuple(words["gram"].to_pylist()),
            count_V=words["count"].to_numpy().astype(np.int64),
            n_words=n_words,
            ngrams=dict(zip(ngrams["gram"].to_pylist(), ngrams["count"].to_pylist(), strict=True)),
        )

    def with_general(self, counts: Mapping[str, int]) -> Statistics:
        """Adds word counts of general language, in the language of the corpus."""
        general_V = np.array([counts.get(word, 0) for word in self.words], dtype=np.int64)
        return replace(self, general_V=general_V, n_general=(sum(counts.values()), len(counts)))

    def with_relevance(self, types: pa.Table) -> Statistics:
        """Adds mean relevance, from the merged tables of `relevance_block` over the corpus."""
        return replace(self, relevance_V=self._per_occurrence(types, "relevance"))

    def with_importance(self, types: pa.Table) -> Statistics:
        """Adds how often words mattered, from the merged tables of `relevance_block` over labelled notes."""
        return replace(self, important_V=self._per_occurrence(types, "n_important"))

    def _per_occurrence(self, types: pa.Table, column: str) -> F64:
        rows = {word: row for row, word in enumerate(types["gram"].to_pylist())}
        row_V = np.array([rows.get(word, -1) for word in self.words], dtype=np.int64)
        share = types[column].to_numpy() / types["n_seen"].to_numpy()
        return np.append(share.round(9), np.nan)[row_V]  # later digits depend on the order in which notes were summed

    def with_vectors(self, vectors_VD: F32) -> Statistics:
        """Adds one vector per word of `words` (masking/vectors.py)."""
        if len(vectors_VD) != len(self.words):
            raise ValueError(f"{len(vectors_VD)} vectors for {len(self.words)} words")
        return replace(self, vectors_VD=vectors_VD)

    def with_lexicon(self, path: str, terms: tuple[str, ...]) -> Statistics:
        """Adds the terms of a lexicon file under the path by which the config calls it."""
        return replace(self, lexicons={**self.lexicons, path: terms})

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def lookup(self, words: list[str]) -> I64:
        """Numbers of these words, -1 for words that are not in the table."""
        get = self.index.get
        return np.array([get(word, -1) for word in words], dtype=np.int64)

    def tficf(self) -> F64:
        """[V], typical words score high: c/N * log((N_G + V_G) / (c_G + 1)), -inf for words that cannot be anchors.

        A TF-IDF analogue with general language as the background (docs/method.md, section 8.2; the authors' scoring
        code is not public). An anchor has two characters or more, at least one letter, and is no stop-word.
        """
        if self.general_V is None:
            raise ValueError("no general word counts")
        rarity_V = np.log(sum(self.n_general) / (self.general_V + 1.0))
        fit_V = [len(w) >= 2 and w not in STOP_WORDS and any(map(str.isalpha, w)) for w in self.words]
        return np.where(fit_V, self.count_V / max(self.n_words, 1) * rarity_V, -np.inf)

    def save(self, folder: Path) -> None:
        """Writes words.parquet, ngrams.parquet and statistics.json."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"word": pa.array(self.words, pa.string()), "count": pa.array(self.count_V)}
        optional = {"general": self.general_V, "relevance": self.relevance_V, "important": self.important_V}
        columns |= {name: pa.array(values) for name, values in optional.items() if values is not None}
        if self.vectors_VD is not None:
            width = self.vectors_VD.shape[1]
            columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors_VD.ravel()), width)
        rows.write(pa.table(columns), folder / "words.parquet")
        ngrams = {
            "gram": pa.array(self.ngrams.keys(), pa.string()),
            "count": pa.array(self.ngrams.values(), pa.int64()),
        }
        rows.write(pa.table(ngrams), folder / "ngrams.parquet")
        rest = {"n_words": self.n_words, "n_general": self.n_general, "lexicons": self.lexicons}
        (folder / "statistics.json").write_text(json.dumps(rest, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Statistics:
        """Reads what `save` wrote."""
        words, ngrams = rows.read(folder / "words.parquet"), rows.read(folder / "ngrams.parquet")
        rest = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
        columns = {name: words[name].to_numpy() for name in words.column_names if name not in ("word", "vector")}
        vectors_VD = None
        if "vector" in words.column_names:
            flat = words["vector"].combine_chunks().flatten().to_numpy()
            vectors_VD = flat.reshape(words.num_rows, -1).astype(np.float32)
        return cls(
            words=tuple(words["word"].to_pylist()),
            count_V=columns["count"],
            n_words=rest["n_words"],
            ngrams=dict(zip(ngrams["gram"].to_pylist(), ngrams["count"].to_pylist(), strict=True)),
            general_V=columns.get("general"),
            n_general=tuple(rest["n_general"]),
            relevance_V=columns.get("relevance"),
            important_V=columns.get("important"),
            vectors_VD=vectors_VD,
            lexicons={path: tuple(terms) for path, terms in rest["lexicons"].items()},
        )
