"""Population based training: every two epochs the worst quarter copies the best and perturbs its settings."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.train.epochs = 20
    config.sweep.space.learning_rate = {"low": 1e-5, "high": 1e-2, "log": True}
    config.sweep.space.weight_decay = {"low": 1e-5, "high": 1e-1, "log": True}
    config.sweep.sampler = "random"
    config.sweep.trials = 8
    config.sweep.pbt = {"every_epochs": 2, "fraction": 0.25, "perturb": 1.2}
    config.lanes.count = 8
    return config
