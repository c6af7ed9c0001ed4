"""Excludes dev and test notes, and near copies of them, from self-supervised training.

A note is blocked if its id or its group (patient) is held out, if it says the same words as a held-out note, or if it
nearly does: Jaccard similarity of word 5-shingles >= .8 (docs/method.md, section 3.4). MinHash (Broder 1997) with
banding proposes candidates, and the shingles themselves decide.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from raypipe.hashing import stable_hash
from raypipe.words import normalise, word_spans

Hashes = npt.NDArray[np.uint64]
Small = npt.NDArray[np.uint32]

SIMILAR = 0.8
_SHINGLE = 5  # words
# 25 bands of 5 rows: a pair at Jaccard .8 shares a band with probability .99995, one at .3 with .06
_BANDS, _ROWS = 25, 5
# Share of equal signature entries below which a candidate is not compared: 5 standard deviations under .8
_WORTH_A_LOOK = 0.62
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SEEDS = np.random.Generator(np.random.PCG64(5)).integers(1, 2**63, (2, _BANDS * _ROWS), dtype=np.uint64) | np.uint64(1)
_POWERS = np.array([pow(0x100000001B3, n, 2**64) for n in range(_SHINGLE)], dtype=np.uint64)


def _no_signatures() -> Small:
    return np.empty((0, _BANDS * _ROWS), dtype=np.uint32)


def is_of_other_part(note_id: str, group_id: str | None, share: float, pretrains: bool) -> bool:
    """Whether this note is in the part of `data.pretraining_share` that is not read here.

    `pretrains`: the reader is pretraining, not one of the other steps. A group is in one part as a whole.
    """
    return share > 0 and (stable_hash("pretraining", group_id or note_id) < share * 2**64) != pretrains


@dataclass(frozen=True)
class Guard:
    """The held-out notes as hashes, to send to every worker: about 2 kB per note of 235 words."""

    note_ids: frozenset[str] = frozenset()
    group_ids: frozenset[str] = frozenset()
    shingles: list[Small] = field(default_factory=list)  # sorted, of each held-out note
    signatures: Small = field(default_factory=_no_signatures)
    bands: dict[int, list[int]] = field(default_factory=dict)  # hash of a band -> held-out notes with it

    @classmethod
    def fit(cls, notes: Iterable[Mapping[str, Any]]) -> Guard:
        """From the held-out notes (rows.NOTES); a note without text counts by its id and group."""
        held_out = list(notes)
        shingles = [hashes for hashes in (shingle_hashes(note["text"] or "") for note in held_out) if len(hashes)]
        signatures = np.stack([_signature(hashes) for hashes in shingles]) if shingles else _no_signatures()
        bands: dict[int, list[int]] = {}
        for number, signature in enumerate(signatures):
            for band in _band_hashes(signature):
                bands.setdefault(band, []).append(number)
        groups = {note["group_id"] for note in held_out} - {None}
        ids = frozenset(note["note_id"] for note in held_out)
        return cls(ids, frozenset(groups), [_small(hashes) for hashes in shingles], signatures, bands)

    def blocks(self, note_id: str, group_id: str | None, text: str) -> bool:
        """Whether self-supervised training must not see this note."""
        if note_id in self.note_ids or (group_id is not None and group_id in self.group_ids):
            return True
        shingles_S = shingle_hashes(text)
        return bool(len(shingles_S)) and self._has_near_copy(shingles_S)

    def _has_near_copy(self, shingles_S: Hashes) -> bool:
        signature = _signature(shingles_S)
        candidates = list({number for band in _band_hashes(signature) for number in self.bands.get(band, ())})
        if not candidates:
            return False
        own = _small(shingles_S)
        is_close = (self.signatures[candidates] == signature).mean(axis=1) >= _WORTH_A_LOOK
        near = (number for number, close in zip(candidates, is_close, strict=True) if close)
        return any(_jaccard(own, self.shingles[number]) >= SIMILAR for number in near)


def shingle_hashes(text: str) -> Hashes:
    """One 64-bit hash per distinct run of five words, case and punctuation aside; a shorter note is one run.

    Equal words give equal hashes in every process. Empty for a text without words.
    """
    text = normalise(text)
    words = [_word_hash(text[a:b]) for a, b in word_spans(text).tolist()]
    if not words:
        return np.empty(0, dtype=np.uint64)
    width = min(_SHINGLE, len(words))
    runs = np.lib.stride_tricks.sliding_window_view(np.array(words, dtype=np.uint64) * _MIX, width)
    return np.unique(_mixed((runs * _POWERS[:width]).sum(axis=1, dtype=np.uint64)))


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return zlib.crc32(word.lower().encode("utf-8", "surrogatepass"))


def _mixed(z: Hashes) -> Hashes:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return z ^ (z >> np.uint64(27))


def _signature(shingles_S: Hashes) -> Small:
    """MinHash: two notes agree in an entry with probability equal to their Jaccard similarity."""
    permuted = shingles_S[:, None] * _SEEDS[0] + _SEEDS[1]
    return (permuted.min(axis=0) >> np.uint64(32)).astype(np.uint32)


def _band_hashes(signature: Small) -> list[int]:
    """One number per band of the signature, the band's own number mixed in."""
    odd = _SEEDS[0, : _ROWS + 1]
    numbers = np.arange(_BANDS, dtype=np.uint64) * odd[_ROWS]
    rows = signature.reshape(_BANDS, _ROWS).astype(np.uint64)
    hashes: list[int] = _mixed((rows * odd[:_ROWS]).sum(axis=1, dtype=np.uint64) + numbers).tolist()
    return hashes


def _small(shingles_S: Hashes) -> Small:
    return np.unique((shingles_S >> np.uint64(32)).astype(np.uint32))


def _jaccard(left: Small, right: Small) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
