"""What is made small: losses by name, and of the user's own, from one rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from hpjax.errors import UserCodeError
from hpjax.tasks import CLASSES, kind_of
from hpjax.train.metrics import cross_entropy


@dataclass(frozen=True)
class LossRule:
    """The static half of a task: what is made small and measured, the same for all trials of a group.

    Attributes:
      name: of the loss, as in `task.loss`.
      metrics: what is measured besides, as in `hpjax.tasks.METRICS`.
      outputs: how many classes, labels or numbers there are.
      targets: axes of an example's target: 0 of classes, 1 of labels and numbers.
      class_weights: of each class, or of each label's positive examples; empty: all count equally.
      centre: of each number, near its mean: variances are summed around it.
      own: the user's function where `name` is `FILE.py:FUNCTION`.
    """

    name: str = "cross_entropy"
    metrics: tuple[str, ...] = ("accuracy",)
    outputs: int = 0
    targets: int = 0
    class_weights: tuple[float, ...] = ()
    centre: tuple[float, ...] = ()
    own: Callable[..., Any] | None = None

    @property
    def weighs_classes(self) -> bool:
        """Whether examples count differently: the mean loss is then over their weights."""
        return bool(self.class_weights) and kind_of(self.name) == CLASSES


IMAGE_CLASSES = LossRule()


def compute_losses(
    rule: LossRule, outputs: Any, targets: Array, smoothing: Float[Array, ""] | float = 0.0
) -> Float[Array, " batch"]:
    """Returns each example's loss; `smoothing` is that of classes and labels."""
    if rule.own is not None:
        return _compute_own(rule, outputs, targets)
    return _LOSSES[rule.name](rule, outputs, targets, smoothing)


def example_weights(rule: LossRule, targets: Array) -> Float[Array, " batch"]:
    """Returns how much each example counts, where classes count differently."""
    return jnp.asarray(rule.class_weights, jnp.float32)[targets]


def _compute_own(rule: LossRule, outputs: Any, targets: Array) -> Float[Array, " batch"]:
    losses = rule.own(outputs, targets)  # type: ignore[misc]
    shape = getattr(losses, "shape", None)
    if shape != (len(targets),):
        given = f"shape {shape}" if shape is not None else type(losses).__name__
        raise UserCodeError(f"task.loss={rule.name!r} gives {given}: expected a loss per example")
    return losses.astype(jnp.float32)


def _cross_entropy(rule: LossRule, outputs: Array, targets: Array, smoothing) -> Array:
    losses = cross_entropy(outputs, targets, smoothing)
    return losses * example_weights(rule, targets) if rule.class_weights else losses


def _binary(rule: LossRule, outputs: Array, targets: Array, smoothing) -> Array:
    logits, targets = outputs.astype(jnp.float32), targets.astype(jnp.float32)
    targets = targets * (1.0 - smoothing) + 0.5 * smoothing
    weights = jnp.asarray([rule.class_weights or (1.0,)], jnp.float32)
    losses = -weights * targets * jax.nn.log_sigmoid(logits) - (1 - targets) * jax.nn.log_sigmoid(-logits)
    return losses.mean(-1)


def _squared(rule: LossRule, outputs: Array, targets: Array, smoothing) -> Array:
    return jnp.square(outputs.astype(jnp.float32) - targets).mean(-1)


def _huber(rule: LossRule, outputs: Array, targets: Array, smoothing) -> Array:
    return optax.losses.huber_loss(outputs.astype(jnp.float32), targets).mean(-1)


_LOSSES: dict[str, Callable[[LossRule, Array, Array, Any], Array]] = {
    "cross_entropy": _cross_entropy,
    "binary": _binary,
    "mse": _squared,
    "huber": _huber,
}
