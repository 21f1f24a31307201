"""Seeds: three weight decays, five times each side by side, so that noise can be told from effect."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 32
    config.sweep.space.weight_decay = (0.0, 0.01, 0.1)
    config.sweep.seeds = 5
    return config
