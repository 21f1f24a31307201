"""Learning rate on ResNet18: too low or too high ruins the result."""

from hpjax.config import get_default


def get_config():
    config = get_default()
    config.model.name = "resnet18"
    config.train.batch_size = 32
    config.sweep.space.learning_rate = (1e-7, 1e-4, 1e-2)
    return config
