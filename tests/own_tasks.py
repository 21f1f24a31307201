"""Data, losses and networks of a user's own, for tests of whole sweeps: compiled in no time."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hpjax.models.layers import Dropout

FILE = __file__


def table():
    """Returns a table whose numbers follow from its features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(52, 3))
    y = x @ [1.0, -2.0, 0.5] + 3
    return {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}


def signs():
    """Returns labels of the table: two of each example."""
    return {split: (x, np.stack([y > 3, x[:, 0] > 0], 1)) for split, (x, y) in table().items()}


def tokens():
    """Returns sequences of tokens of two classes by name, the first of them rare."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (52, 5))
    y = np.where((x == 3).any(1), "with", "without")
    return {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}


def cubed(outputs, targets):
    """Returns a loss that hpjax has none of."""
    return (jnp.abs(outputs - targets) ** 3).mean(-1)


class Net(nnx.Module):
    """A dense layer on numbers, or on tokens, with dropout before it."""

    def __init__(self, *, num_classes, input_shape, embed: bool = False, rngs):
        self.embed = nnx.Embed(9, 4, rngs=rngs) if embed else None
        self.dropout = Dropout()
        self.out = nnx.Linear(4 if embed else math.prod(input_shape), num_classes, rngs=rngs)

    def __call__(self, inputs, *, dropout_rate=0.0, rngs=None):
        x = inputs.reshape(len(inputs), -1) if self.embed is None else self.embed(inputs).mean(1)
        return self.out(self.dropout(x, rate=dropout_rate, rngs=rngs))
