"""Classes of short sequences: does an opening bracket close again? By one layer of attention.

python -m hpjax.main --config=docs/examples/tokens.py
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hpjax.config import get_default

OPEN, CLOSE, OTHERS = 0, 1, 6  # the other tokens are 2 to 5
LENGTH = 16


def get_config():
    """Returns the sweep's configuration."""
    config = get_default()
    config.data.name = f"{__file__}:draw_sequences"
    config.model.name = f"{__file__}:Attention"
    config.task.metrics = ("balanced_accuracy", "auroc")
    config.task.class_weights = "balanced"
    config.train.epochs = 20
    config.sweep.space = {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "model.width": (8, 32),
    }
    config.sweep.sampler, config.sweep.trials = "random", 16
    return config


def draw_sequences():
    """Returns sequences of tokens, and whether the last bracket of each is a closing one."""
    return {"train": _draw(2000, seed=0), "test": _draw(500, seed=1)}


def _draw(count, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, OTHERS, (count, LENGTH))
    brackets = rng.random((count, LENGTH)) < 0.2
    tokens = np.where(brackets, rng.choice([OPEN, CLOSE], (count, LENGTH), p=[0.3, 0.7]), tokens)
    last = np.array([([token for token in row if token < 2] or [OPEN])[-1] for row in tokens])
    return tokens, np.where(last == CLOSE, "closed", "open")


class Attention(nnx.Module):
    """Tokens and places, one layer of attention, and the mean over the sequence."""

    def __init__(self, *, num_classes, input_shape, width: int = 16, heads: int = 2, rngs):
        """Builds the network."""
        self.token = nnx.Embed(OTHERS, width, rngs=rngs)
        self.place = nnx.Param(0.1 * rngs.params.normal((*input_shape, width)))
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, tokens):
        """Returns logits."""
        x = self.token(tokens) + self.place[...]
        return self.out(jnp.mean(x + self.attention(x), 1))
