"""Learning rate on ResNet18: 1e-4 learns; 1e-7 underfits, and at 1e-2 the test loss bounces."""

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.model.name = "resnet18"  # model.pretrained=PATH starts from ImageNet weights, as the article does
    config.train.batch_size = 32
    config.sweep.space.learning_rate = (1e-7, 1e-4, 1e-2)
    return config
