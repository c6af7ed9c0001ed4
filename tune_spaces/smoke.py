"""The smallest grid that has a heat map: does the search work at all? Ends in minutes on generated notes."""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.15, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.5]),
}
