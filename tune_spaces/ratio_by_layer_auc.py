"""Masking ratio x attribution layer, ranked by AUC on dev: for few labels and few steps of fine-tuning.

After few steps students rank notes before their answers follow, and macro F1 sees the commonest answer alone. Each
setting three times, with another order and start of reconstruction: fewer say nothing of the noise.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.15, 0.3, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.5]),
    "train.seed": tune.grid_search([0, 1, 2]),
}
METRIC = "dev_auc"
