"""Hashes and random numbers that depend on a row's own identity, never on the worker or batch that holds it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def stable_hash(*parts: str | int | None) -> int:
    """A 64-bit hash of the parts, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big")


def generator(*parts: str | int | None) -> np.random.Generator:
    """A random generator of its own for each row: seed it with (seed, note_id, ...)."""
    return np.random.Generator(np.random.PCG64(stable_hash(*parts)))


def fingerprint(value: Any) -> str:
    """A short hash of any JSON-like value: equal values have equal fingerprints."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
