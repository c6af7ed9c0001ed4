"""Terms of one or more words, and where they occur in a note."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from raypipe.errors import Code, RowError
from raypipe.masking.case import Note
from raypipe.masking.counting import is_adjacent
from raypipe.masking.units import Run
from raypipe.notes.annotated_spans import of_tags
from raypipe.words import normalise, word_spans


def read_terms(path: str) -> tuple[str, ...]:
    """A lexicon: a UTF-8 text file with one term per line; blank lines and lines that begin with # are skipped.

    Accents are composed as in the notes.
    """
    lines = (line.strip() for line in normalise(Path(path).read_text(encoding="utf-8")).splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


class Terms:
    """A set of terms, matched over words in lower case: longest first, left to right."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._terms = {" ".join(term.lower()[a:b] for a, b in word_spans(term.lower())) for term in terms} - {""}
        # first word -> (lengths of its terms, by second word; lengths whatever the second word), longest first
        self._lengths: dict[str, tuple[dict[str, list[int]], list[int]]] = {}
        for words in sorted((term.split(" ") for term in self._terms), key=len):
            by_second, alone = self._lengths.setdefault(words[0], ({}, []))
            if len(words) == 1:
                alone.append(1)
            elif len(words) not in (lengths := by_second.setdefault(words[1], list(alone))):
                lengths.insert(0, len(words))

    def find(self, note: Note) -> list[Run]:
        """Occurrences in reading order; they do not overlap."""
        words, occurrences, free = [*note.words, ""], list[Run](), 0
        for first, lengths in enumerate(map(self._lengths.get, words)):
            if lengths is None or first < free:
                continue
            by_second, alone = lengths
            for n in by_second.get(words[first + 1], alone):
                is_term = n <= 2 or " ".join(words[first : first + n]) in self._terms
                if is_term and (n == 1 or _is_one(note, first, n)):
                    occurrences.append((first, first + n - 1))
                    free = first + n
                    break
        return occurrences


def _is_one(note: Note, first: int, n: int) -> bool:
    if first + n > len(note.words):
        return False
    text, bounds = note.text, note.bounds
    for word in range(first, first + n - 1):  # noqa: SIM110 (all() over a generator takes twice as long)
        if not is_adjacent(text[bounds[word][1] : bounds[word + 1][0]]):
            return False
    return True


def tagged(note: Note) -> list[Run]:
    """The words of each entity of the note's BIO tags; an entity without a word is left out.

    Raises `RowError(TYPE)` if the tags are missing, no BIO tags, or of another number than the tokens.
    """
    try:
        entities = of_tags(note.tags or (), note.text)
    except ValueError:
        raise RowError(Code.TYPE) from None
    start_W, end_W = note.words_W2.T
    runs = (
        (int(np.searchsorted(end_W, start, side="right")), int(np.searchsorted(start_W, end, side="left")) - 1)
        for _, start, end in entities
    )
    return [(first, last) for first, last in runs if first <= last]
