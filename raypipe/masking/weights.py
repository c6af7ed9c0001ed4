"""Loss weights of entity and base spans: the "mask-specific" part of MSLM's loss (docs/method.md, section 7)."""

from __future__ import annotations

import math

from raypipe.masking.spans import BASE, ENTITY
from raypipe.masking.tally import Tally
from raypipe.settings.config import Masking, Mslm


def omega(n_entity: int, n_base: int) -> float:
    """Weight of entities as MSLM's code computes it, within [.5, .622]; base spans have 1 - omega.

    Its clamps and softmax reduce to sigmoid(|share of entities - 1/2|): it does not depend on which kind is rarer.
    """
    share = n_entity / (n_entity + n_base) if n_entity + n_base else 0.5
    return 1 / (1 + math.exp(-abs(share - 0.5)))


def kind_weights(settings: Mslm, n_entity: int, n_base: int) -> tuple[float, float, float]:
    """Weights of plain, entity and base spans, given how much text of each kind the plans hide.

    `code`: 1 + omega and 1 + (1 - omega). `inverse`: each kind weighs the other's share, the apparent intention.
    `fixed`: as configured. The two are rescaled so that a hidden character weighs 1 on average, which keeps the
    learning rate comparable between strategies.
    """
    share = n_entity / (n_entity + n_base) if n_entity + n_base else 0.5
    raw = {
        "code": (1 + omega(n_entity, n_base), 2 - omega(n_entity, n_base)),
        "inverse": (1 - share, share),
        "fixed": (settings.entity_weight, settings.base_weight),
    }[settings.weights]
    mean = share * raw[0] + (1 - share) * raw[1]
    if not mean:  # `inverse` with one kind only
        return 1.0, 1.0, 1.0
    return 1.0, raw[0] / mean, raw[1] / mean


def weights_of_arm(settings: Masking, hidden: Tally) -> tuple[float, float, float]:
    """`kind_weights` of an arm, from its plans over the whole corpus; (1, 1, 1) for all strategies but mslm.

    Amounts are hidden characters, which do not depend on a student's tokenizer.
    """
    if settings.strategy != "mslm":
        return (1.0, 1.0, 1.0)
    return kind_weights(settings.mslm, int(hidden.characters[ENTITY]), int(hidden.characters[BASE]))
