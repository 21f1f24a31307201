"""The sweep that several devices, or workers, train: five rates, tiny, saved after every epoch."""

from tiny_network import MODEL


def write_sweep(epochs: int, lanes: int) -> str:
    """Returns a config file."""
    return f"""
from hpjax.config import get_default
from hpjax.sweep import events

events.CHECKPOINT_SHARE = 1.0  # epochs this short would hardly ever be saved

def get_config():
    config = get_default()
    config.model.name = {MODEL["name"]!r}
    config.data.name, config.data.image_size = "digits", 12
    config.data.max_train_examples, config.data.max_test_examples = 50, 30
    config.train.batch_size, config.train.epochs = 12, {epochs}
    config.sweep.space = {{"learning_rate": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3)}}
    config.lanes.strategy, config.lanes.count = "fused", {lanes}
    config.trackers = ()
    return config
"""
