"""Batch normalisation, ReLU and max pooling in one: no full-size activation between convolution and pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hpjax.ops.batch_norm import Moments, batch_moments, normalize, shared_gradient
from hpjax.ops.compiler import compute_apart
from hpjax.ops.sums import feature_sums, only_real

Window = tuple[int, int]


def batch_norm_max_pool(
    x: Float[Array, "batch height width features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    mask: Float[Array, " batch"] | None = None,
    *,
    window: Window = (2, 2),
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
    window: Window = (2, 2),
    epsilon: float = 1e-5,
) -> Float[Array, "batch out_height out_width features"]:
    """Returns the same from given statistics; for evaluation."""
    # Normalisation keeps or reverses order: the winner is known before it, and only winners need it.
    return normalize(_winners(x, scale, window), mean, variance, scale, bias, epsilon=epsilon, relu=True)


def _primal(x, scale, bias, mask, window: Window, epsilon: float) -> tuple[Array, Moments]:
    moments = batch_moments(x, mask)
    y = normalize_max_pool(x, moments.mean, moments.variance, scale, bias, window=window, epsilon=epsilon)
    return y, moments


def _forward(x, scale, bias, mask, window, epsilon):
    moments = batch_moments(x, mask)
    winners, places = compute_apart(_find_winners, x, scale, window)
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
    centred = x.astype(factor.dtype) - moments.mean
    shared = shared_gradient(centred, moments, d_bias, d_centred, epsilon)
    dx = factor * (_unpooled(dy, places, window, x.shape) - only_real(shared, mask))
    d_scale = d_centred * inverse_deviation
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


_norm_pool = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_norm_pool.defvjp(_forward, _backward)


def _taps(x: Array, window: Window) -> list[Array]:
    """Returns, for each place in a window, what all windows hold there."""
    height, width = (size // side * side for size, side in zip(x.shape[1:3], window, strict=True))
    return [
        x[:, i : height : window[0], j : width : window[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _winners(x: Array, scale: Array, window: Window) -> Array:
    taps = _taps(x, window)
    largest, smallest = functools.reduce(jnp.maximum, taps), functools.reduce(jnp.minimum, taps)
    return jnp.where(scale >= 0, largest, smallest)


def _find_winners(x: Array, scale: Array, window: Window) -> tuple[Array, Array]:
    """Returns each window's winner, and its place in the window."""
    winners = _winners(x, scale, window)
    taps = _taps(x, window)
    places = jnp.full(winners.shape, len(taps), jnp.int8)
    for place in reversed(range(len(taps))):
        places = jnp.where(taps[place] == winners, np.int8(place), places)
    return winners, places


def _unpooled(dy: Array, places: Array, window: Window, shape: tuple[int, ...]) -> Array:
    """Returns `dy` where each window's winner was, and zeros elsewhere, in `shape`."""
    height, width = window
    place = width * np.arange(height)[:, None, None, None] + np.arange(width)[:, None]
    mine = places[:, :, None, :, None] == place.astype(np.int8)
    spread = jnp.where(mine, dy[:, :, None, :, None], 0)
    batch, rows, columns, features = dy.shape
    full = spread.reshape(batch, rows * height, columns * width, features)
    return lax.pad(
        full,
        jnp.zeros((), full.dtype),
        [(0, 0, 0), (0, shape[1] - rows * height, 0), (0, shape[2] - columns * width, 0), (0, 0, 0)],
    )
