"""Sums over the stored plans of a corpus, by arm, in one streaming pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.words import I32, I64

N_KINDS = 3  # plain, entity, base (masking/spans.py)


@dataclass
class Tally:
    """Sums over the plans of one arm."""

    plans: int = 0
    spans: int = 0
    n_masked: int = 0  # eligible words hidden
    n_eligible: int = 0
    characters: I64 = field(default_factory=lambda: np.zeros(N_KINDS, np.int64))  # hidden, by kind of span

    @property
    def ratio(self) -> float:
        """The realised masking ratio."""
        return self.n_masked / max(1, self.n_eligible)

    @property
    def facts(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {**vars(self), "characters": self.characters.tolist(), "ratio": round(self.ratio, 4)}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Tally:
        """What `facts` was made of. Raises KeyError if an earlier version made it, of fewer sums."""
        sums = {name: facts[name] for name in ("plans", "spans", "n_masked", "n_eligible")}
        return cls(**sums, characters=np.asarray(facts["characters"], np.int64))


def tally(masked: Path) -> dict[str, Tally]:
    """By arm, from a folder of rows.MASKED."""
    return tally_of(batch.column("plans") for batch in rows.dataset(masked).to_batches(columns=["plans"]))


def tally_of(plans: Iterable[pa.ListArray]) -> dict[str, Tally]:
    """By arm, from columns of plans (lists of rows.PLAN)."""
    out: dict[str, Tally] = {}
    for column in plans:
        flat = column.flatten()
        arms = flat.field("arm").dictionary_encode()
        _add(out, arms.dictionary.to_pylist(), np.asarray(arms.indices), flat)
    return out


def _add(out: dict[str, Tally], names: list[str], arm_P: I32, plans: pa.StructArray) -> None:
    start, end, kind = (plans.field(name) for name in ("start", "end", "kind"))
    spans_P = np.asarray(start.value_lengths())
    hidden_S = np.asarray(end.flatten()) - np.asarray(start.flatten())
    # one counter per arm and kind
    counter_S = np.repeat(arm_P, spans_P) * N_KINDS + np.asarray(kind.flatten())
    characters = np.bincount(counter_S, hidden_S, len(names) * N_KINDS).astype(np.int64).reshape(-1, N_KINDS)
    masked_P, eligible_P = (np.asarray(plans.field(name)) for name in ("n_masked", "n_eligible"))
    for number, name in enumerate(names):
        of_arm = arm_P == number
        sums = out.setdefault(name, Tally())
        sums.plans += int(of_arm.sum())
        sums.spans += int(spans_P[of_arm].sum())
        sums.n_masked += int(masked_P[of_arm].sum())
        sums.n_eligible += int(eligible_P[of_arm].sum())
        sums.characters += characters[number]
