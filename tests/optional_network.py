"""A network with options of every kind, compiled in no time."""

import jax
import jax.numpy as jnp
from flax import nnx


class Net(nnx.Module):
    """Two dense layers on the mean colour; a lane has its own temperature and share of dropped examples."""

    dynamic = ("temperature", "drop_path")

    def __init__(self, *, num_classes, width: int = 3, act: str = "relu", scale: float | None = None, rngs):
        if act not in ("relu", "tanh"):
            raise ValueError(f"no activation {act}")
        self.hidden = nnx.Linear(3, width, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, rngs=rngs)
        self.act, self.scale = getattr(jax.nn, act), scale

    def __call__(self, images, *, temperature=1.0, drop_path=0.0, rngs=None):
        x = self.act(self.hidden(images.mean((1, 2))))
        x = x if self.scale is None else x * self.scale
        if rngs is not None:
            x = x * jnp.where(jax.random.uniform(rngs.dropout(), (len(x), 1)) < drop_path, 0.0, 1.0)
        return self.out(x) / temperature
