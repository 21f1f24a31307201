"""Weight decay: 0.01 learns, 1.0 leaves almost no capacity to learn."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 450
    config.sweep.space.weight_decay = (0.01, 1.0)
    return config
