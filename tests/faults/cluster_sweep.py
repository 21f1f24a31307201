"""The sweep whose workers are killed: groups that run side by side, each lane a program of its own.

So its results are the same to the bit however its lanes are spread.
"""

from pathlib import Path

from hpjax.config import get_default
from hpjax.sweep import events

events.CHECKPOINT_SHARE = 1.0  # epochs this short would hardly ever be saved


def get_config():
    config = get_default()
    config.data.name, config.data.image_size = "digits", 12
    config.data.max_train_examples, config.data.max_test_examples = 50, 30
    config.model.name = f"{Path(__file__).parents[1] / 'tiny_network.py'}:Tiny"
    config.train.epochs = 150
    config.sweep.space = {"batch_size": (10, 12, 25, 50), "learning_rate": (1e-4, 3e-4, 1e-3)}
    config.lanes.strategy, config.lanes.count = "sequential", 2
    config.checkpoint.keep = 12
    config.trackers = ()
    return config
