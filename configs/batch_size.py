"""Batch size: smaller batches reach a higher accuracy in as many epochs, at a higher cost per epoch."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.optimizer.learning_rate = 1e-4
    config.sweep.space.batch_size = (10, 256, 450)
    return config
