"""Batch normalisation, with a ReLU on request, whose backward pass reads the activations only twice."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hpjax.ops.compiler import recomputed
from hpjax.ops.sums import accumulation_dtype, along_features, feature_sums, only_real


class Moments(NamedTuple):
    """Statistics of a batch, per feature; in float32 or wider, whatever the activations' dtype."""

    mean: Float[Array, " features"]
    variance: Float[Array, " features"]  # biased: the mean squared deviation
    count: Float[Array, ""]  # values per feature that were counted


def batch_norm(
    x: Float[Array, "batch *space features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    mask: Float[Array, " batch"] | None = None,
    *,
    epsilon: float = 1e-5,
    relu: bool = False,
) -> tuple[Float[Array, "batch *space features"], Moments]:
    """Normalises each feature by the statistics of this batch (Ioffe & Szegedy, arXiv:1502.03167).

    Args:
      x: activations, features last.
      scale: factor after normalisation.
      bias: offset after normalisation.
      mask: 1 for a real example; examples at 0 are normalised too but don't count, whatever they hold.
      epsilon: added to the variance.
      relu: whether a ReLU follows.

    Returns:
      The normalised activations in the dtype of `x`, and the batch's moments, which pass no gradient.
    """
    y, moments = _batch_norm(x, scale, bias, mask, epsilon, relu)
    return y, jax.lax.stop_gradient(moments)


def normalize(
    x: Float[Array, "batch *space features"],
    mean: Float[Array, " features"],
    variance: Float[Array, " features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    epsilon: float = 1e-5,
    relu: bool = False,
) -> Float[Array, "batch *space features"]:
    """Returns `x` normalised by given statistics, in its own dtype; for evaluation."""
    wide = accumulation_dtype(x.dtype)
    per_feature = (mean, _factor(variance, scale, epsilon), bias.astype(wide))
    mean, factor, bias = (along_features(values, x.ndim) for values in per_feature)
    y = (x.astype(wide) - mean) * factor + bias
    return (jnp.maximum(y, 0) if relu else y).astype(x.dtype)


def fold(
    kernel: Float[Array, "height width channels features"],
    mean: Float[Array, " features"],
    variance: Float[Array, " features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "height width channels features"], Float[Array, " features"]]:
    """Returns a kernel and a bias that give what `normalize` makes of the convolution with `kernel`.

    Both in the dtype of `kernel`, rounded once; the other operands are those of `normalize`.
    """
    wide = accumulation_dtype(kernel.dtype)
    factor = _factor(variance, scale, epsilon)
    folded = kernel.astype(wide) * along_features(factor, kernel.ndim)
    return folded.astype(kernel.dtype), (bias.astype(wide) - mean * factor).astype(kernel.dtype)


def _primal(x, scale, bias, mask, epsilon: float, relu: bool) -> tuple[Array, Moments]:
    moments = batch_moments(x, mask)
    return normalize(x, moments.mean, moments.variance, scale, bias, epsilon=epsilon, relu=relu), moments


def _forward(x, scale, bias, mask, epsilon, relu):
    y, moments = _primal(x, scale, bias, mask, epsilon, relu)
    return (y, moments), (x, scale, bias, mask, moments)


def _backward(epsilon, relu, residuals, cotangents):
    x, scale, bias, mask, moments = residuals
    factor = _factor(moments.variance, scale, epsilon)

    def gradient_and_centred(x, dy, mean, factor, bias):
        centred, dy = x.astype(mean.dtype) - mean, dy.astype(mean.dtype)
        # Recomputing the sign from x saves keeping the output or a mask of it.
        return (jnp.where(centred * factor + bias > 0, dy, 0) if relu else dy), centred

    def terms(*operands):
        dy, centred = gradient_and_centred(*operands)
        return dy, dy * centred

    operands = (x, cotangents[0])
    per_feature = recomputed((moments.mean, factor, bias.astype(factor.dtype)))
    d_bias, d_centred = feature_sums(terms, operands, per_feature)
    per_feature = recomputed(per_feature)
    dy, centred = gradient_and_centred(*operands, *(along_features(f, x.ndim) for f in per_feature))
    shared = shared_gradient(centred, moments, d_bias, d_centred, epsilon)
    dx = along_features(factor, x.ndim) * (dy - only_real(shared, mask))
    d_scale = d_centred * jax.lax.rsqrt(moments.variance + epsilon)
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


_batch_norm = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_batch_norm.defvjp(_forward, _backward)


def batch_moments(x: Float[Array, "batch *space features"], mask: Float[Array, " batch"] | None) -> Moments:
    """Returns the moments of the examples that count."""
    count = _count(x, mask)

    def terms(x, origin):
        shifted = x.astype(origin.dtype) - origin
        return shifted, jnp.square(shifted)

    # One pass over x; a value of the data itself as origin keeps E[x^2] - E[x]^2 from cancelling.
    origin = jax.lax.stop_gradient(x[(0, *(size // 2 for size in x.shape[1:-1]))]).astype(
        accumulation_dtype(x.dtype)
    )
    total, total_square = feature_sums(terms, (x,), (origin,), mask)
    mean = total / count
    # Keeps NaN: a maximum by comparison could turn a diverged lane's statistics into healthy ones.
    variance = total_square / count - jnp.square(mean)
    return Moments(mean + origin, jnp.where(variance < 0, 0, variance), count)


def shared_gradient(
    centred: Float[Array, "batch *space features"],
    moments: Moments,
    d_bias: Float[Array, " features"],
    d_centred: Float[Array, " features"],
    epsilon: float,
) -> Float[Array, "batch *space features"]:
    """Returns what each output's gradient owes to all inputs through mean and variance.

    Args:
      centred: inputs less their mean.
      moments: of the inputs.
      d_bias: sum of the outputs' gradients.
      d_centred: sum of the outputs' gradients times `centred`.
      epsilon: added to the variance.
    """
    slope = d_centred / (moments.variance + epsilon)
    d_bias, slope = (along_features(values, centred.ndim) for values in (d_bias, slope))
    return (d_bias + centred * slope) / moments.count


def _count(x: Array, mask: Array | None) -> Array:
    examples = x.shape[0] if mask is None else (mask > 0).sum()
    space = x[0, ..., 0].size
    return jnp.maximum(jnp.asarray(examples, accumulation_dtype(x.dtype)) * space, 1)


def _factor(variance: Array, scale: Array, epsilon: float) -> Array:
    return jax.lax.rsqrt(variance + epsilon) * scale.astype(variance.dtype)
