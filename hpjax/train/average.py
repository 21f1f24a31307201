"""The exponential moving average of the weights, and of the statistics that go with them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from hpjax.train.hparams import Scalar


class Average(NamedTuple):
    """What is averaged over the steps.

    Attributes:
      params: the weights that are trained.
      batch_stats: of batch norm. Running statistics of the weights themselves are those of other activations
        than the averaged weights give.
    """

    params: nnx.State
    batch_stats: nnx.State


def create_average(params: nnx.State, batch_stats: nnx.State) -> Average:
    """Returns the average before the first step, in arrays of its own."""
    return Average(*jax.tree.map(jnp.array, (params, batch_stats)))


def move_average(average: Average, new: Average, decay: Scalar, first: Bool[Array, ""]) -> Average:
    """Returns the average after a step: decay * average + (1 - decay) * new; after the first one, `new`.

    What doesn't change stays to the bit, and without decay the average is `new` to the bit.
    """
    kept = jnp.where(first, 0, decay)

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        moved = jnp.where(kept > 0.5, old + (1 - kept) * (new - old), new + kept * (old - new))
        return moved.astype(new.dtype)

    return jax.tree.map(move, average, new)
