"""Many settings at once, at random, with ASHA: trials that are behind after an epoch of fine-tuning are stopped.

For a model-based search, `pip install optuna` and add

    from ray.tune.search.optuna import OptunaSearch
    SEARCH = OptunaSearch()
"""

from ray import tune
from ray.tune.schedulers import ASHAScheduler

PARAM_SPACE = {
    "arms.decselfmask.masking.ratio": tune.uniform(0.05, 0.6),
    "attribution.layer": tune.choice([0.0, 0.25, 0.5]),
    "arms.decselfmask.masking.format": tune.choice(["multi", "single"]),
    "arms.decselfmask.masking.prompt_loss": tune.choice([0.0, 0.5, 1.0]),
    "train.learning_rate": tune.loguniform(1e-4, 2e-3),
    "train.epochs": tune.choice([1.0, 2.0]),
}
NUM_SAMPLES = 40
SCHEDULER = ASHAScheduler(time_attr="training_iteration", grace_period=1, reduction_factor=3)
