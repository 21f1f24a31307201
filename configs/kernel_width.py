"""Kernel width: all three kernels of the network, from 3 to 9 pixels."""

from hpjax.config import get_default


def get_config():
    config = get_default()
    config.train.batch_size = 32
    config.optimizer.learning_rate = 1e-4
    config.sweep.space.kernel_width = (3, 5, 7, 9)
    return config
