"""One method, target and layer, and what relevance of it is worth: a row of the faithfulness table."""

from __future__ import annotations

import dataclasses
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
    seconds: float  # attribution of all questions, this layer alone
    agreement: Agreement | None

    def flat(self) -> dict[str, Any]:
        """The row as one line of a table."""
        line = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "agreement"}
        a = self.agreement
        low, high = a.hit_interval if a else (None, None)
        line |= {"hit_share": a and a.hit_share, "hit_low": low, "hit_high": high, "chance": a and a.chance}
        line |= {"least_relevant_share": a and a.least_relevant_share, "average_precision": a and a.average_precision}
        return line | {"cases": a and a.n_cases}
