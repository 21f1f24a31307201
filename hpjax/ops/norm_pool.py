"""Batch normalisation, ReLU and max pooling in one: no full-size activation between convolution and pool."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from hpjax.ops.batch_norm import Moments, batch_moments, normalize, shared_gradient
from hpjax.ops.compiler import compute_apart
from hpjax.ops.pool import Pair, Windows, first_places, unpool, window_taps
from hpjax.ops.sums import along_features, feature_sums, only_real


def batch_norm_max_pool(
    x: Float[Array, "batch height width features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    mask: Float[Array, " batch"] | None = None,
    *,
    window: Pair = (2, 2),
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "batch out_height out_width features"], Moments]:
    """Normalises by the statistics of this batch, cuts off below zero and keeps each window's maximum.

    The same as `batch_norm(..., relu=True)` and `max_pool(..., window, window)`. A window's gradient goes to
    its first maximum; rows and columns that fill no window count in the statistics only.

    Args:
      x: activations.
      scale: factor after normalisation.
      bias: offset after normalisation.
      mask: 1 for a real example; the others are normalised too but don't count.
      window: height and width in pixels; windows lie side by side.
      epsilon: added to the variance.

    Returns:
      The pooled activations in the dtype of `x`, and the batch's moments, which pass no gradient.
    """
    y, moments = _norm_pool(x, scale, bias, mask, window, epsilon)
    return y, lax.stop_gradient(moments)


def normalize_max_pool(
    x: Float[Array, "batch height width features"],
    mean: Float[Array, " features"],
    variance: Float[Array, " features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    window: Pair = (2, 2),
    epsilon: float = 1e-5,
) -> Float[Array, "batch out_height out_width features"]:
    """Returns the same from given statistics; for evaluation."""
    # Normalisation keeps or reverses order: the winner is known before it, and only winners need it.
    winners = _winners(scale, window_taps(x, Windows(window, window)))
    return normalize(winners, mean, variance, scale, bias, epsilon=epsilon, relu=True)


def _primal(x, scale, bias, mask, window: Pair, epsilon: float) -> tuple[Array, Moments]:
    moments = batch_moments(x, mask)
    y = normalize_max_pool(x, moments.mean, moments.variance, scale, bias, window=window, epsilon=epsilon)
    return y, moments


def _forward(x, scale, bias, mask, window, epsilon):
    moments = batch_moments(x, mask)
    winners, places = compute_apart(_find_winners, (x, scale), window)
    y = normalize(winners, moments.mean, moments.variance, scale, bias, epsilon=epsilon, relu=True)
    return (y, moments), (x, winners, places, y, scale, bias, mask, moments)


def _backward(window, epsilon, residuals, cotangents):
    x, winners, places, y, scale, bias, mask, moments = residuals
    inverse_deviation = lax.rsqrt(moments.variance + epsilon)
    factor = inverse_deviation * scale.astype(inverse_deviation.dtype)
    dy = jnp.where(y > 0, cotangents[0].astype(factor.dtype), 0)
    d_bias, d_centred = feature_sums(
        lambda dy, x, mean: (dy, dy * (x.astype(mean.dtype) - mean)), (dy, winners), (moments.mean,)
    )
    centred = x.astype(factor.dtype) - along_features(moments.mean, x.ndim)
    shared = shared_gradient(centred, moments, d_bias, d_centred, epsilon)
    unpooled = unpool(dy, places, Windows(window, window), x.shape)
    dx = along_features(factor, x.ndim) * (unpooled - only_real(shared, mask))
    d_scale = d_centred * inverse_deviation
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


_norm_pool = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_norm_pool.defvjp(_forward, _backward)


def _winners(scale: Array, taps: list[Array]) -> Array:
    largest, smallest = functools.reduce(jnp.maximum, taps), functools.reduce(jnp.minimum, taps)
    return jnp.where(along_features(scale >= 0, largest.ndim), largest, smallest)


def _find_winners(x: Array, scale: Array, window: Pair) -> tuple[Array, Array]:
    """Returns each window's winner, and its place in the window."""
    taps = window_taps(x, Windows(window, window))
    winners = _winners(scale, taps)
    return winners, first_places(taps, winners)
