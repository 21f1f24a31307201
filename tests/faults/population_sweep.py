"""The third sweep that is killed: a population whose lanes copy each other and change their settings.

Its layout is measured once, and remembered for all starts.
"""

from pathlib import Path

from hpjax.config import get_default
from hpjax.sweep import events

events.CHECKPOINT_SHARE = (
    1.0  # epochs this short would hardly ever be saved, and a kill never come in between
)


def get_config():
    config = get_default()
    config.data.name, config.data.image_size = "synthetic_scenes", 30
    config.data.max_train_examples, config.data.max_test_examples = 80, 24
    config.data.validation_fraction = 0.2
    config.model.name = f"{Path(__file__).parents[1] / 'tiny_network.py'}:Tiny"
    config.train.batch_size, config.train.epochs = 8, 6
    config.sweep.space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    config.sweep.sampler, config.sweep.trials = "random", 4
    config.sweep.pbt = {"every_epochs": 1, "fraction": 0.25, "perturb": 1.5}
    config.checkpoint.keep = 4
    config.trackers = ()
    return config
