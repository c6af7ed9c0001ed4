"""Masking ratio x attribution layer, ranked by AUC on dev: for few labels and few steps of fine-tuning.

After few steps a student already ranks notes, but still gives all of them the commonest answer: AUC sees it, macro F1
does not. Each setting three times, with another order and other first adapters of reconstruction. Masks and fine-tuning
are the same in all three, so their noise is not in the intervals.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.grid_search([0.15, 0.3, 0.45]),
    "attribution.layer": tune.grid_search([0.0, 0.5]),
    "train.seed": tune.grid_search([0, 1, 2]),
}
METRIC = "dev_auc"
