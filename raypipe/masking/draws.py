"""Random numbers that depend on a key alone, never on the worker that draws them.

A counter-based generator (splitmix64 over 1, 2, 3, ... plus a key): the numbers of a row follow from its key, so
1 worker and 8 workers in any order agree. Constructing a `numpy.random.Generator` per row would cost more than masking
the row.
"""

from __future__ import annotations

import numpy as np

from raypipe.words import F64

_STEP = 0x9E3779B97F4A7C15  # splitmix64, Steele et al. 2014
_WORD64 = 0xFFFFFFFFFFFFFFFF
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_COUNTERS = np.arange(1, 4097, dtype=np.uint64) * np.uint64(_STEP)


def uniforms(key: int, n: int, stream: int = 0) -> F64:
    """`n` numbers in the open interval (0, 1), from a key of 64 bits (`hashing.stable_hash`).

    Different streams of one key are independent.
    """
    counters = _COUNTERS[:n] if n <= len(_COUNTERS) else np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_STEP)
    z = counters + np.uint64((key ^ (stream * 0xD1342543DE82EF95)) & _WORD64)
    z ^= z >> _S30
    z *= _A
    z ^= z >> _S27
    z *= _B
    z ^= z >> _S31
    return ((z >> _S11).astype(np.float64) + 0.5) * 2.0**-53


def gumbel(uniform_N: F64) -> F64:
    """Standard Gumbel noise: the k largest of log(weight) + noise are k draws without replacement by weight."""
    return -np.log(-np.log(uniform_N))
