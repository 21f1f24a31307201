"""Metrics of any task: what of each batch is summed, and what follows from the sums."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpjax.errors import ConfigError
from hpjax.tasks import LOSS
from hpjax.train.loss import LossRule, compute_losses, example_weights
from hpjax.train.metrics import Sums, sum_examples, zero_sums

_BINS = 512  # of probabilities, from 0 to 1
_TOP = 5


def sum_scores(
    rule: LossRule, outputs: Any, targets: Array, smoothing: Any, mask: Float[Array, " batch"] | None
) -> Sums:
    """Returns the sums over a batch; examples whose `mask` is 0 don't count, whatever they hold.

    Args:
      rule: of the task.
      outputs: what the model gave; logits, or numbers.
      targets: what they should be.
      smoothing: of classes and labels, in [0, 1).
      mask: 1 for a real example; None: all are real.
    """
    losses = compute_losses(rule, outputs, targets, smoothing)
    if rule.metrics:
        _check_shape(rule, outputs)
    accuracy = "accuracy" in rule.metrics
    correct = _find_correct(rule, outputs, targets) if accuracy else jnp.zeros(len(losses), jnp.float32)
    sums = sum_examples(losses, correct, mask)
    weights = jnp.ones(len(losses), jnp.float32) if mask is None else (mask > 0).astype(jnp.float32)
    return sums._replace(more=_sum_more(rule, outputs, targets, weights))


def zero_scores(rule: LossRule, shape: tuple[int, ...] = ()) -> Sums:
    """Returns sums over no examples; `shape` is the leading one of each field."""
    more = {name: jnp.zeros((*shape, *each), jnp.float32) for name, each in _find_shapes(rule).items()}
    return zero_sums(shape)._replace(more=more)


@functools.cache
def _find_shapes(rule: LossRule) -> dict[str, tuple[int, ...]]:
    width = max(rule.outputs, 1)
    outputs, weights = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, width), (1,)))
    targets = outputs if rule.targets else jax.ShapeDtypeStruct((1,), jnp.int32)
    more = jax.eval_shape(lambda *arrays: _sum_more(rule, *arrays), outputs, targets, weights)
    return {name: x.shape for name, x in more.items()}


def _sum_more(
    rule: LossRule, outputs: Any, targets: Array, weights: Float[Array, " batch"]
) -> dict[str, Array]:
    more = {"weight": example_weights(rule, targets) @ weights} if rule.weighs_classes else {}
    for name in rule.metrics:
        if name in _PARTS:
            more |= _PARTS[name](rule, outputs, targets, weights)
    return more


def mean_loss(sums: Sums) -> Any:
    """Returns the mean loss of an example, of one weighted by its class where these count differently."""
    return sums.loss / sums.more.get("weight", sums.count)


def measure(rule: LossRule, sums: Sums) -> dict[str, float | None]:
    """Returns the loss and each metric by name, from one trial's sums on the host; None where undefined.

    In float64: 399 of 600 are 0.665, not what float32 makes of it.
    """
    parts = {name: np.asarray(value, np.float64) for name, value in sums.more.items()}
    count = float(sums.count)
    found: dict[str, float | None] = {LOSS: float(sums.loss) / float(parts.get("weight", count))}
    for name in rule.metrics:
        value = float(sums.correct) / count if name == "accuracy" else _VALUES[name](rule, parts, count)
        found[name] = value
    return found


def _check_shape(rule: LossRule, outputs: Any) -> None:
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] != max(rule.outputs, 1):
        allowed = f"() with a model that gives {shape} instead of (examples, {rule.outputs})"
        raise ConfigError("task.metrics", rule.metrics, allowed)


def _is_classes(rule: LossRule) -> bool:
    return rule.targets == 0


def _find_correct(rule: LossRule, outputs: Array, targets: Array) -> Float[Array, " batch"]:
    """Returns whether each example's class is right, or the share of its labels that are."""
    if _is_classes(rule):
        return (outputs.argmax(-1) == targets).astype(jnp.float32)
    return ((outputs > 0) == (targets > 0.5)).astype(jnp.float32).mean(-1)


def _as_labels(rule: LossRule, outputs: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Returns truth, answer and probability of each class or label, `[batch, outputs]`."""
    logits = outputs.astype(jnp.float32)
    if _is_classes(rule):
        truth, answer = (jax.nn.one_hot(c, rule.outputs) for c in (targets, logits.argmax(-1)))
        return truth, answer, jax.nn.softmax(logits)
    return (targets > 0.5).astype(jnp.float32), (logits > 0).astype(jnp.float32), jax.nn.sigmoid(logits)


def _sum_top5(rule: LossRule, outputs: Array, targets: Array, weights: Array) -> dict[str, Array]:
    logits = outputs.astype(jnp.float32)
    true = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    before = (logits > true).sum(-1)
    return {"top5": ((before < _TOP) & jnp.isfinite(true[:, 0])).astype(jnp.float32) @ weights}


def _sum_confusion(rule: LossRule, outputs: Array, targets: Array, weights: Array) -> dict[str, Array]:
    truth, answer, _ = _as_labels(rule, outputs, targets)
    return {"hits": weights @ (truth * answer), "truth": weights @ truth, "answers": weights @ answer}


def _sum_ranks(rule: LossRule, outputs: Array, targets: Array, weights: Array) -> dict[str, Array]:
    truth, _, probability = _as_labels(rule, outputs, targets)
    bins = jnp.clip((jnp.nan_to_num(probability) * _BINS).astype(jnp.int32), 0, _BINS - 1)
    columns = jnp.broadcast_to(jnp.arange(truth.shape[1]), bins.shape)
    zero, weight = jnp.zeros((truth.shape[1], _BINS), jnp.float32), weights[:, None]
    put = lambda values: zero.at[columns, bins].add(values * weight)  # noqa: E731
    return {"positives": put(truth), "negatives": put(1 - truth)}


def _sum_errors(rule: LossRule, outputs: Array, targets: Array, weights: Array) -> dict[str, Array]:
    errors = jnp.abs(outputs.astype(jnp.float32) - targets)
    return {"errors": jnp.where(weights[:, None] > 0, errors, 0).sum(0)}


def _sum_squares(rule: LossRule, outputs: Array, targets: Array, weights: Array) -> dict[str, Array]:
    real, centred = weights[:, None] > 0, targets - jnp.asarray([rule.centre or (0.0,)], jnp.float32)
    squares = jnp.square(outputs.astype(jnp.float32) - targets)
    parts = {"squares": squares, "centred": centred, "variance": jnp.square(centred)}
    return {name: jnp.where(real, part, 0).sum(0) for name, part in parts.items()}


_Parts = Mapping[str, np.ndarray]


def _top5(rule: LossRule, parts: _Parts, count: float) -> float:
    return float(parts["top5"]) / count


def _balanced(rule: LossRule, parts: _Parts, count: float) -> float | None:
    truth, hits = parts["truth"], parts["hits"]
    if _is_classes(rule):
        return _mean(hits[truth > 0] / truth[truth > 0])
    others = count - truth
    known = (truth > 0) & (others > 0)
    rejected = others - parts["answers"] + hits
    return _mean((hits[known] / truth[known] + rejected[known] / others[known]) / 2)


def _f1(rule: LossRule, parts: _Parts, count: float) -> float | None:
    either = parts["truth"] + parts["answers"]
    return _mean(2 * parts["hits"][either > 0] / either[either > 0])


def _auroc(rule: LossRule, parts: _Parts, count: float) -> float | None:
    """How often a positive example has a higher probability than a negative one; half of the ties."""
    positives, negatives = parts["positives"], parts["negatives"]
    below = np.cumsum(negatives, -1) - negatives / 2
    pairs = positives.sum(-1) * negatives.sum(-1)
    return _mean((positives * below).sum(-1)[pairs > 0] / pairs[pairs > 0])


def _mae(rule: LossRule, parts: _Parts, count: float) -> float | None:
    return _mean(parts["errors"] / count)


def _r2(rule: LossRule, parts: _Parts, count: float) -> float | None:
    """Of numbers that are all equal 0, or 1 where they are answered to the bit."""
    around = parts["variance"] - np.square(parts["centred"]) / count
    varies = around > 1e-9 * np.maximum(parts["variance"], 1e-30)
    share = parts["squares"] / np.where(varies, around, 1)
    return _mean(np.where(varies, 1 - share, np.where(parts["squares"] > 0, 0.0, 1.0)))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


_PARTS: dict[str, Callable[[LossRule, Array, Array, Array], dict[str, Array]]] = {
    "top5_accuracy": _sum_top5,
    "balanced_accuracy": _sum_confusion,
    "f1": _sum_confusion,
    "auroc": _sum_ranks,
    "mae": _sum_errors,
    "r2": _sum_squares,
}
_VALUES: dict[str, Callable[[LossRule, _Parts, float], float | None]] = {
    "top5_accuracy": _top5,
    "balanced_accuracy": _balanced,
    "f1": _f1,
    "auroc": _auroc,
    "mae": _mae,
    "r2": _r2,
}
