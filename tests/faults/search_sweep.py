"""The sweep that is killed: a search with pruning, so that what comes next depends on what was recorded."""

from pathlib import Path

from hpjax.config import get_default
from hpjax.sweep import events

events.CHECKPOINT_SHARE = (
    1.0  # epochs this short would hardly ever be saved, and a kill never come in between
)


def get_config():
    config = get_default()
    config.data.name, config.data.image_size = "synthetic_scenes", 30
    config.data.max_train_examples, config.data.max_test_examples = 120, 24
    config.data.validation_fraction = 0.2
    config.model.name = f"{Path(__file__).parents[1] / 'tiny_network.py'}:Tiny"
    config.train.batch_size, config.train.epochs = 8, 4
    config.sweep.space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "weight_decay": (0.0, 0.1),
    }
    config.sweep.sampler, config.sweep.trials, config.sweep.pruner = "tpe", 8, "successive_halving"
    config.lanes.strategy, config.lanes.count = "fused", 3
    config.checkpoint.keep = 8
    config.trackers = ()
    return config
