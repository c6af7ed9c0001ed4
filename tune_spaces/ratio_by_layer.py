"""Masking ratio x attribution layer: the grid that matters first, for any model.

A space is Python: PARAM_SPACE maps dotted config keys to ray.tune samplers. Layers are fractions of the depth, so that
one space serves models of different depth; layers where the method's relevance is rounding noise are refused when the
attribution engine opens the model.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.075, 0.15, 0.3, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.25, 0.5, 0.75]),
}
METRIC = "dev_macro_f1"
NUM_SAMPLES = 1
