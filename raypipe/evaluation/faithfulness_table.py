"""A row of the faithfulness table: one method, target and layer, with the measures of its relevance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.evaluation.agreement import Agreement


@dataclass(frozen=True)
class FaithfulnessRow:
    """The columns of `evaluation.faithfulness.faithfulness_table`; differences of probabilities, and shares."""

    variant: str
    method: str
    reduction: str
    target: str
    layer: int
    n_notes: int
    comprehensiveness: float  # AOPC: high is good
    sufficiency: float  # AOPC: low is good
    soft_nc: float
    soft_ns: float
    comprehensiveness_1: float  # without the top 1 % of the words alone, and so on
    comprehensiveness_5: float
    comprehensiveness_10: float
    comprehensiveness_20: float
    comprehensiveness_50: float
    reversed: float  # comprehensiveness of the same ranking backwards
    vs_random: float  # comprehensiveness less that of random relevance
    vs_random_low: float
    vs_random_high: float
    vs_best: float  # comprehensiveness less that of the best variant, 0 for itself
    vs_best_low: float
    vs_best_high: float
    seconds: float  # attribution of all questions, this layer alone
    agreement: Agreement | None

    @property
    def may_be_best(self) -> bool:
        """Whether the notes leave it open that this variant is as good as the best one."""
        return self.vs_best_high >= 0

    def flat(self) -> dict[str, Any]:
        """The row as one line of a table."""
        line = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "agreement"}
        a = self.agreement
        low, high = a.hit_interval if a else (None, None)
        line |= {"hit_share": a and a.hit_share, "hit_low": low, "hit_high": high, "chance": a and a.chance}
        line |= {"least_relevant_share": a and a.least_relevant_share, "average_precision": a and a.average_precision}
        return line | {"cases": a and a.n_cases}


def where_to_start(rows: Sequence[FaithfulnessRow], has_learned: bool | None = None) -> str:
    """Which variant to start from: the cheapest of those above random relevance that the best one does not beat.

    None at all where the scorer has not learned the tasks (`has_learned` is False), or where no variant is above random
    relevance: the order is noise then (docs/method.md, 11.6).
    """
    ranked = sorted((r for r in rows if r.method != "random"), key=lambda r: -r.comprehensiveness)
    if has_learned is False:
        return "No variant is first: the scorer has not learned these tasks, so there is nothing to be faithful to."
    if not any(row.vs_random_low > 0 for row in ranked):
        return "No variant is first: none is above random relevance (95 % interval), so their order is noise."
    best, *others = ranked
    above = [row for row in ranked if row.vs_random_low > 0]
    level = [row for row in others if row.may_be_best]
    cheapest = min([row for row in above if row.may_be_best] or above, key=lambda row: row.seconds)
    if not others:
        return f"{best.variant} is above random relevance (95 %); there is no other variant."
    if best not in above:
        what = f"{best.variant} has the highest mean, but is not above random relevance (95 %)"
        return f"No variant is first: {what}; cheapest above random: {cheapest.variant} ({cheapest.seconds:.1f} s)."
    if not level:
        return f"{best.variant} is above every other variant (95 %, not corrected for their number)."
    second = level[0]
    interval = f"[{100 * second.vs_best_low:.1f}, {100 * second.vs_best_high:.1f}]"
    return (
        f"{best.variant} is first; {second.variant} differs from it by {100 * second.vs_best:.1f} {interval} points. "
        f"Variants that cannot be told from the first: {len(level)}; cheapest above random: {cheapest.variant} "
        f"({cheapest.seconds:.1f} s)."
    )
