"""Plans: which characters each arm hides in a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from raypipe.errors import Code, InputError, RowError
from raypipe.hashing import stable_hash
from raypipe.masking import requirements
from raypipe.masking.case import Case, Note
from raypipe.masking.selection import budget
from raypipe.masking.spans import NOTHING, Hidden
from raypipe.masking.statistics import Statistics
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.strategy import Strategy
from raypipe.models.sentinels import contains_sentinel
from raypipe.settings.config import Masking
from raypipe.words import F32, I32

MaskingPlan = dict[str, Any]  # a dict with the fields of rows.PLAN


@dataclass(frozen=True)
class _Arm:
    name: str
    settings: Masking
    strategy: Strategy
    prepared: Any


@dataclass(frozen=True)
class _Choice:
    hidden: Hidden
    n_eligible: int

    @property
    def ratio(self) -> float:
        return self.hidden.n_masked / self.n_eligible if self.n_eligible else 0.0


class Masker:
    """Plans a note for all arms at once; built in every worker, where it gives the same plans for the same note."""

    def __init__(self, arms: Mapping[str, Masking], seed: int, statistics: Statistics | None = None) -> None:
        """Raises `InputError` with every problem of the arms (`requirements.problems`) and of the statistics."""
        if problems := requirements.problems(arms):
            raise InputError(problems)
        self._seed = seed
        self._arms = {
            name: _arm(name, settings, statistics) for name, settings in requirements.with_draws(arms).items()
        }
        listed = (settings.sentinels for settings in arms.values() if not isinstance(settings.sentinels, str))
        self._sentinels = tuple(dict.fromkeys(chain.from_iterable(listed)))
        self._order = [self._arms[name] for name in requirements.order(arms)]

    def plans(
        self,
        note_id: str,
        text: str,
        words_W2: I32,
        task_ids: Sequence[str],
        relevance_QW: F32 | None,
        tags: Sequence[str] | None = None,
        is_cut: bool = True,
    ) -> list[MaskingPlan]:
        """One plan per arm, task and draw, as `rows.PLAN`; without tasks, one per arm and draw.

        An arm that does not read relevance gets one plan per task as well, so that arms are equal in number of
        examples. A plan may hide nothing (n_masked 0), and the realised ratio counts it. `is_cut`: the scorer may not
        have seen the whole note, so no arm hides words before the first or after the last with any relevance.
        Raises `RowError(SENTINEL)` if the note contains a mask sentinel of any family or arm, `RowError(NONFINITE)` for
        relevance that is no number, `RowError(NO_SPAN)` if no arm can learn anything from the note.
        """
        if contains_sentinel(text, self._sentinels):
            raise RowError(Code.SENTINEL)
        if relevance_QW is not None and not np.isfinite(relevance_QW).all():
            raise RowError(Code.NONFINITE)
        note = Note(text, words_W2, relevance_QW, tags, is_cut)
        tasks: list[str | None] = [*task_ids] or [None]
        chosen: dict[tuple[str, int, int], _Choice] = {}
        for arm in self._order:
            for q, task in enumerate(tasks[:1] if arm.strategy.once else tasks):
                for draw in range(arm.settings.draws):
                    reference = _reference(chosen, arm.settings.match_ratio_to, q, draw)
                    key = stable_hash(self._seed, arm.settings.seed, note_id, task, draw)
                    chosen[arm.name, q, draw] = _choose(arm, note, q, key, reference)
        plans = [
            _plan(name, None if arm.strategy.once else task, d, chosen[name, q, d])
            for name, arm in self._arms.items()
            for q, task in enumerate(tasks)
            for d in range(arm.settings.draws)
            if (name, q, d) in chosen and not _is_idle(arm, chosen[name, q, d])
        ]
        if not any(plan["n_masked"] or self._arms[plan["arm"]].strategy.refills for plan in plans):
            raise RowError(Code.NO_SPAN)
        return plans


def _arm(name: str, settings: Masking, statistics: Statistics | None) -> _Arm:
    strategy = STRATEGIES[settings.strategy]
    prepared = None
    if strategy.prepare is not None:
        prepared = strategy.prepare(settings, statistics if statistics is not None else Statistics())
    return _Arm(name, settings, strategy, prepared)


def _reference(chosen: Mapping[tuple[str, int, int], _Choice], name: str | None, q: int, draw: int) -> _Choice | None:
    """What the matched arm chose for the same task and draw, or for its only draw."""
    return None if name is None else chosen.get((name, q, draw)) or chosen[name, q, 0]


def _choose(arm: _Arm, note: Note, q: int, key: int, reference: _Choice | None) -> _Choice:
    pool = note.pool(arm.settings)
    n_eligible = len(pool.eligible_E)
    k = budget(arm.settings.ratio if reference is None else reference.ratio, n_eligible)
    if (reference is not None and not reference.hidden.n_masked) or (not n_eligible and not arm.strategy.refills):
        return _Choice(NOTHING, n_eligible)
    case = Case(
        note=note,
        pool=pool,
        settings=arm.settings,
        budget=k,
        is_matched=reference is not None,
        relevance_W=None if note.relevance_QW is None else note.relevance_QW[q],
        key=key,
        prepared=arm.prepared,
        reference=None if reference is None else reference.hidden,
    )
    return _Choice(arm.strategy.hide(case), n_eligible)


def _is_idle(arm: _Arm, choice: _Choice) -> bool:
    """Whether a refilled arm has nothing to refill here, because the arm that it matches hides nothing."""
    return arm.strategy.refills and arm.settings.match_ratio_to is not None and not len(choice.hidden.start_S)


def _plan(arm: str, task: str | None, draw: int, choice: _Choice) -> MaskingPlan:
    hidden = choice.hidden
    return {
        "arm": arm,
        "task_id": task,
        "draw": draw,
        "start": hidden.start_S.tolist(),
        "end": hidden.end_S.tolist(),
        "kind": hidden.kind_S.tolist(),
        "n_masked": hidden.n_masked,
        "n_eligible": choice.n_eligible,
    }
