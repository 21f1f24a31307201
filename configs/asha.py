"""Successive halving: of 64 random settings most stop early and hand their lane to the next one."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.train.epochs = 16
    config.sweep.space.learning_rate = {"low": 1e-5, "high": 1e-1, "log": True}
    config.sweep.space.weight_decay = {"low": 1e-6, "high": 1.0, "log": True}
    config.sweep.space.dropout_rate = {"low": 0.0, "high": 0.8}
    config.sweep.sampler = "random"
    config.sweep.trials = 64
    config.sweep.pruner = "successive_halving"
    config.sweep.pruner_options = {"min_resource": 1, "reduction_factor": 4}
    config.lanes.count = 8
    return config
