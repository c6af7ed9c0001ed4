"""Masking ratio x attribution layer: the grid that matters first, for any model.

Layers are fractions of the depth, so that one space serves models of different depth: those that meet in one layer of a
shallow model are tried once, and a layer at which the attribution method says nothing is refused with the valid ones.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.075, 0.15, 0.3, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.25, 0.5, 0.75]),
}
METRIC = "dev_macro_f1"
MODE = "max"
