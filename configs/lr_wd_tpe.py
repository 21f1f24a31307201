"""Learning rate and weight decay together: Optuna's TPE, on a held-out tenth of the training images."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.sweep.space.learning_rate = {"low": 1e-5, "high": 1e-2, "log": True}
    config.sweep.space.weight_decay = {"low": 1e-5, "high": 1.0, "log": True}
    config.sweep.sampler = "tpe"
    config.sweep.trials = 32
    config.sweep.enqueue = ({"learning_rate": 1e-4, "weight_decay": 0.01},)  # the article's setting
    return config
