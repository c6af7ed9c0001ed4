"""Batches of rows of about equal length: little padding, bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def token_batches(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Indices of rows in batches, longest first; rows * longest row <= `budget_tokens`, or the batch is one row.

    Longest first, so that a batch that does not fit the memory fails at once and not after an hour.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or longest * (len(batches[-1]) + 1) > budget_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def in_batches(
    items: Sequence[Item],
    lengths: Sequence[int],
    budget_tokens: int,
    function: Callable[[list[Item]], Sequence[Result]],
) -> list[Result]:
    """`function` of the items, batch by batch; its results in the order of the items."""
    results: dict[int, Result] = {}
    for batch in token_batches(lengths, budget_tokens):
        results |= zip(batch, function([items[i] for i in batch]), strict=True)
    return [results[i] for i in range(len(items))]
