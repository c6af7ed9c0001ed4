"""The paper's masking against ours, at each one's own choices, over layers: which of the differences matters?

`profile: paper` is arXiv 2606.09466 as its code has it (hysteresis selection, one sentinel format, loss on all tokens);
keys that the config gives itself win over the profile. Hysteresis sets its own ratio, so ratios are not searched here.
"""

from ray import tune

PARAM_SPACE = {
    "arms.decselfmask.masking.profile": tune.grid_search(["raypipe", "paper"]),
    "attribution.layer": tune.grid_search([0.0, 0.5]),
    "attribution.target": tune.grid_search(["label_margin", "label_logprob"]),
    "train.seed": tune.grid_search([0, 1, 2]),
}
