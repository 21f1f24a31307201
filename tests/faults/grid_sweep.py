"""The second sweep that is killed: two groups, a trial that diverges, and the best one once more.

Its lanes are trained in two threads of the host.
"""

import dataclasses
from pathlib import Path

from hpjax.config import get_default
from hpjax.lanes.capacity import choose_layout
from hpjax.sweep import events, workers

events.CHECKPOINT_SHARE = (
    1.0  # epochs this short would hardly ever be saved, and a kill never come in between
)


def _choose_threads(*arguments):
    choice = choose_layout(*arguments)
    return dataclasses.replace(
        choice, layout=dataclasses.replace(choice.layout, lanes_per_shard=1, threads=2)
    )


workers.choose_layout = _choose_threads


def get_config():
    config = get_default()
    config.data.name, config.data.image_size = "synthetic_scenes", 30
    config.data.max_train_examples, config.data.max_test_examples = 60, 24
    config.model.name = f"{Path(__file__).parents[1] / 'tiny_network.py'}:Tiny"
    config.train.epochs = 6
    config.sweep.space = {"learning_rate": (1e-3, 1e30), "batch_size": (12, 20)}
    config.sweep.final_seeds = 2
    config.lanes.strategy, config.lanes.count = "fused", 2
    config.checkpoint.keep = 2
    return config
