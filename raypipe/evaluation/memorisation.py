"""What a model knows of a secret: its exposure, and whether it says it (The Secret Sharer, arXiv 1802.08232).

Exposure is log2 of the number of candidates less log2 of the secret's rank, the likeliest first: the bits that the
model saves whoever guesses (section 4.2). It is exact here, because every candidate is scored: candidates share the
beginnings of their numbers, and each beginning is read once. Of secrets that the model never saw, half have 1.0 bit
or more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from raypipe.evaluation.scoring import LabelScorer
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, Question
from raypipe.words import F64

Ids = tuple[int, ...]


def log_p(scorer: LabelScorer, context: Ids, candidates: Sequence[Ids]) -> F64:
    """Log-probability [C] of each candidate after the context, nats; none may begin another one.

    Every beginning of a candidate is a branch behind the context, and its next tokens are the options.
    """
    following: dict[Ids, dict[int, None]] = defaultdict(dict)
    for ids in candidates:
        for depth, token in enumerate(ids):
            following[ids[:depth]][token] = None
    *trunk, last = context
    questions = [Question("", (last, *begin), tuple((t,) for t in tokens)) for begin, tokens in following.items()]
    note = EncodedNote("", tuple(trunk), 0, np.empty((0, 2), np.int32), 0, tuple(questions))
    (answers,) = scorer.score([note])
    of_token = {
        (begin, token): float(score)
        for (begin, tokens), (_, scores) in zip(following.items(), answers, strict=True)
        for token, score in zip(tokens, scores, strict=True)
    }
    return np.array([sum(of_token[ids[:depth], token] for depth, token in enumerate(ids)) for ids in candidates])


def rank(log_p_C: F64, secret: int) -> int:
    """The secret's place among the candidates, from 1; those that are as likely as it stand before it."""
    return int((log_p_C >= log_p_C[secret]).sum())


def exposure(rank: int, n_candidates: int) -> float:
    """Bits, from 0 to log2 of the number of candidates."""
    return float(np.log2(n_candidates) - np.log2(rank))


@torch.no_grad()
def is_extracted(loaded: Loaded, context: Ids, secret: Ids) -> bool:
    """Is the secret what greedy decoding says after the context? One pass tells: each token must be the likeliest."""
    ids = np.asarray([*context, *secret], np.int32)
    trees = tree.collate([(ids, np.zeros_like(ids))], loaded.tokenizer.pad_token_id, loaded.device)
    before = tree.hidden_states(loaded.model, trees)[0, len(context) - 1 : len(ids) - 1]
    said: list[int] = tree.logits(loaded.model, before).argmax(-1).tolist()
    return said == list(secret)
