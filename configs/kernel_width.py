"""Kernel width: all three kernels of the custom CNN, from 3 to 9 pixels."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 32
    config.sweep.space.kernel_width = (3, 5, 7, 9)
    return config
