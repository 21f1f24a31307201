"""Training of one trial: state, step, metrics, optimizer. Knows no lanes."""

from hpjax.train.hparams import Hparams, create_hparams
from hpjax.train.state import Recipe, TrainState, create_recipe, create_state
from hpjax.train.step import Batch, eval_step, train_step

__all__ = [
    "Batch",
    "Hparams",
    "Recipe",
    "TrainState",
    "create_hparams",
    "create_recipe",
    "create_state",
    "eval_step",
    "train_step",
]
