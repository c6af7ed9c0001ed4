"""Masking ratio x attribution layer, each setting twice: with another order and start of reconstruction.

Seeds are repetitions: the analysis takes trials that differ in them alone as runs of one setting. The seed of
reconstruction changes nothing that trials share; the config's own `seed` would change the notes' sampled tasks.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.075, 0.15, 0.3, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.25, 0.5, 0.75]),
    "train.seed": tune.grid_search([0, 1]),
}
