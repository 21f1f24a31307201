"""Numbers from a table: scikit-learn's 442 diabetes patients, ten features each, by a small network.

python -m hpjax.main --config=docs/examples/regression.py
"""

import jax
import numpy as np
from flax import nnx

from hpjax.config import get_default


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.data.name = f"{__file__}:load_patients"
    config.data.normalize = "dataset"
    config.model.name = f"{__file__}:Table"
    config.task.loss = "huber"
    config.train.epochs = 30
    config.sweep.space = {
        "learning_rate": {"low": 1e-3, "high": 1.0, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "model.width": (16, 64),
    }
    config.sweep.sampler, config.sweep.trials = "tpe", 32
    return config


def load_patients():
    """Returns patients to learn from and others to be judged on: features, and how the disease went on."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:350], order[350:]
    return {"train": (x[train], y[train]), "test": (x[test], y[test])}


class Table(nnx.Module):
    """Two hidden layers; the last one begins near the mean of what is to be answered."""

    def __init__(self, *, num_classes, input_shape, width: int = 32, rngs):
        """Builds the network."""
        self.first = nnx.Linear(*input_shape, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, bias_init=nnx.initializers.constant(150.0), rngs=rngs)

    def __call__(self, x):
        """Returns an answer per patient."""
        return self.out(jax.nn.relu(self.second(jax.nn.relu(self.first(x)))))
