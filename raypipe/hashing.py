"""Numbers that depend on what a row is, never on which worker or batch it is in."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def stable_hash(*parts: str | int | None) -> int:
    """64 bits of the parts, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big")


def generator(*parts: str | int | None) -> np.random.Generator:
    """A random generator of its own for each row: seed it with (seed, note_id, ...)."""
    return np.random.Generator(np.random.PCG64(stable_hash(*parts)))


def fingerprint(value: Any) -> str:
    """Short name of any JSON-like value: equal values, equal names."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
