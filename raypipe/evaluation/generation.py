"""Greedy decoding bound to the options of a task: only tokens that begin or continue an option are allowed.

The allowed continuations form a trie, so the answer is always one of the options. All its paths are beginnings of
options, and one pass over the token tree gives their log-probabilities (evaluation/scoring.py). So nothing is generated
token by token, but the result is that of a decoder that generates.

Label scoring compares whole options by their mean log-probability per token. This decides at the first token in which
options differ, without looking further. Where all
options are single tokens, both give the same answer. An option that begins another one (`acuta`, `acuta grave`) is
chosen if the end of the answer is likelier than its continuation; fine-tuning teaches both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raypipe.words import F32

END = -1  # stands for the end of the answer among the next tokens


def decode(options: Sequence[tuple[int, ...]], log_p: Sequence[F32]) -> tuple[int, F32]:
    """The option that greedy decoding ends in, and the log-probability [C] of each under the same constraint.

    `log_p[c]` holds the log-probability of every token of option c, given those before, and last, where the option
    begins another one, that of the end. The second value is that of sampling from the model with all other tokens
    forbidden: it sums to 1 over the options. Greedy decoding need not find its largest.
    """
    constrained_C = np.zeros(len(options), np.float32)
    return _descend(options, log_p, list(range(len(options))), 0, constrained_C), constrained_C


def narrowest_margin(options: Sequence[tuple[int, ...]], log_p: Sequence[F32]) -> float:
    """The smallest lead, in nats, by which greedy decoding chose a token; NaN if a log-probability is NaN."""
    members, depth, margins = list(range(len(options))), 0, [np.inf]
    while len(members) > 1:
        branches = _branches(options, members, depth)
        value_X = np.asarray([log_p[below[0]][depth] for below in branches.values()])
        if len(value_X) > 1:
            margins.append(value_X.max() - np.partition(value_X, -2)[-2])
        members, depth = list(branches.values())[int(value_X.argmax())], depth + 1
    return float(np.min(margins))


def longer(options: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """Option -> an option that begins with all its tokens and goes on; those that begin no other are left out."""
    return {
        c: other
        for c, ids in enumerate(options)
        for other, more in enumerate(options)
        if len(more) > len(ids) and more[: len(ids)] == ids
    }


def _branches(options: Sequence[tuple[int, ...]], members: list[int], depth: int) -> dict[int, list[int]]:
    """The options among `members` by their next token, or END."""
    branches: dict[int, list[int]] = {}
    for c in members:
        branches.setdefault(options[c][depth] if depth < len(options[c]) else END, []).append(c)
    return branches


def _descend(
    options: Sequence[tuple[int, ...]], log_p: Sequence[F32], members: list[int], depth: int, constrained_C: F32
) -> int:
    """The greedy choice among `members`, which agree in their first `depth` tokens; adds to `constrained_C`."""
    if len(members) == 1:
        return members[0]
    branches = _branches(options, members, depth)
    value_X = np.asarray([log_p[below[0]][depth] for below in branches.values()])
    value_X -= np.logaddexp.reduce(value_X)
    picks = []
    for value, below in zip(value_X, branches.values(), strict=True):
        constrained_C[below] += value
        picks.append(_descend(options, log_p, below, depth + 1, constrained_C))
    return picks[int(value_X.argmax())]
