"""Sums over examples, from which losses and accuracies follow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Sums(NamedTuple):
    """Sums over the examples seen; add two to join them."""

    loss: Float[Array, ""]  # sum of the examples' losses
    correct: Float[Array, ""]  # how many were classified right
    count: Float[Array, ""]  # how many examples
    more: dict[str, Array] = {}  # what other metrics need, by name; never changed in place


def zero_sums(shape: tuple[int, ...] = ()) -> Sums:
    """Returns sums over no examples of image classes; `shape` is that of each field."""
    loss, correct, count = (jnp.zeros(shape, jnp.float32) for _ in range(3))
    return Sums(loss, correct, count)


def add_sums(a: Sums, b: Sums) -> Sums:
    """Returns the sums over both sets of examples."""
    return jax.tree.map(jnp.add, a, b)


def cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    smoothing: Float[Array, ""] | float = 0.0,
) -> Float[Array, " batch"]:
    """Returns each example's cross-entropy in nats; `smoothing` spreads that mass over all classes evenly."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    true = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    return -(1.0 - smoothing) * true - smoothing * log_p.mean(-1)


def sum_metrics(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    losses: Float[Array, " batch"],
    mask: Float[Array, " batch"] | None,
) -> Sums:
    """Returns the sums over a batch; examples whose `mask` is 0 don't count, whatever they hold."""
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)
    return sum_examples(losses, correct, mask)


def sum_examples(
    losses: Float[Array, " batch"], correct: Float[Array, " batch"], mask: Float[Array, " batch"] | None
) -> Sums:
    """Returns the sums of what each example gave; those whose `mask` is 0 don't count."""
    if mask is None:
        return Sums(losses.sum(), correct.sum(), jnp.asarray(losses.shape[0], jnp.float32))
    real = mask > 0
    return Sums(jnp.where(real, losses, 0).sum(), jnp.where(real, correct, 0).sum(), mask.sum())
