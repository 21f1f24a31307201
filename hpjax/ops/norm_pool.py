"""Batch normalisation, ReLU and max pooling in one: no full-size activation between convolution and pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from hpjax.ops import target
from hpjax.ops.batch_norm import Moments, batch_moments, batch_norm, normalize, shared_gradient
from hpjax.ops.compiler import compute_apart, kept
from hpjax.ops.pool import Pair, Windows, first_places, max_pool, unpool, window_taps
from hpjax.ops.sums import along_features, feature_sums, only_real

UNPADDED = ((0, 0), (0, 0))


def batch_norm_max_pool(
    x: Float[Array, "batch height width features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    mask: Float[Array, " batch"] | None = None,
    *,
    window: Pair = (2, 2),
    strides: Pair | None = None,
    pads: tuple[Pair, Pair] = UNPADDED,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "batch out_height out_width features"], Moments]:
    """Normalises by the statistics of this batch, cuts off below zero and keeps each window's maximum.

    The same as `batch_norm(..., relu=True)` and `max_pool(..., window, strides, pads)`. A window's gradient
    goes to its first maximum; rows and columns that fill no window count in the statistics only.

    Args:
      x: activations.
      scale: factor after normalisation.
      bias: offset after normalisation.
      mask: 1 for a real example; the others are normalised too but don't count.
      window: height and width in pixels.
      strides: pixels from window to window; where None, windows lie side by side.
      pads: pixels before and after, per spatial axis; less than a window.
      epsilon: added to the variance.

    Returns:
      The pooled activations in the dtype of `x`, and the batch's moments, which pass no gradient.
    """
    windows = Windows(window, strides or window, pads)
    if _is_better_apart(windows):
        y, moments = batch_norm(x, scale, bias, mask, epsilon=epsilon, relu=True)
        return max_pool(y, windows.sizes, windows.strides, windows.pads), moments
    y, moments = _norm_pool(x, scale, bias, mask, windows, epsilon)
    return y, lax.stop_gradient(moments)


def normalize_max_pool(
    x: Float[Array, "batch height width features"],
    mean: Float[Array, " features"],
    variance: Float[Array, " features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    window: Pair = (2, 2),
    strides: Pair | None = None,
    pads: tuple[Pair, Pair] = UNPADDED,
    epsilon: float = 1e-5,
) -> Float[Array, "batch out_height out_width features"]:
    """Returns the same from given statistics; for evaluation."""
    windows = Windows(window, strides or window, pads)
    if _is_better_apart(windows):
        y = normalize(x, mean, variance, scale, bias, epsilon=epsilon, relu=True)
        return max_pool(y, windows.sizes, windows.strides, windows.pads)
    return _normalize_winners(x, mean, variance, scale, bias, windows, epsilon)


def _is_better_apart(windows: Windows) -> bool:
    """Returns whether a CPU would compute the pixels of overlapping windows several times."""
    return target.backend() == "cpu" and (windows.sizes != windows.strides or windows.pads != UNPADDED)


def _normalize_winners(x, mean, variance, scale, bias, windows: Windows, epsilon: float) -> Array:
    # Normalisation keeps or reverses order: the winner is known before it, and only winners need it.
    winners, _ = _winners(x, scale, windows)
    return normalize(winners, mean, variance, scale, bias, epsilon=epsilon, relu=True)


def _primal(x, scale, bias, mask, windows: Windows, epsilon: float) -> tuple[Array, Moments]:
    moments = batch_moments(x, mask)
    y = _normalize_winners(x, moments.mean, moments.variance, scale, bias, windows, epsilon)
    return y, moments


def _forward(x, scale, bias, mask, windows, epsilon):
    moments = batch_moments(x, mask)
    winners, places = kept(compute_apart(_find_winners, (x, scale), windows))
    y = normalize(winners, moments.mean, moments.variance, scale, bias, epsilon=epsilon, relu=True)
    return (y, moments), (x, winners, places, y, scale, bias, mask, moments)


def _backward(windows, epsilon, residuals, cotangents):
    x, winners, places, y, scale, bias, mask, moments = residuals
    inverse_deviation = lax.rsqrt(moments.variance + epsilon)
    factor = inverse_deviation * scale.astype(inverse_deviation.dtype)
    dy = jnp.where(y > 0, cotangents[0].astype(factor.dtype), 0)
    d_bias, d_centred = feature_sums(
        lambda dy, x, mean: (dy, dy * (x.astype(mean.dtype) - mean)), (dy, winners), (moments.mean,)
    )
    centred = x.astype(factor.dtype) - along_features(moments.mean, x.ndim)
    shared = shared_gradient(centred, moments, d_bias, d_centred, epsilon)
    unpooled = unpool(dy, places, windows, x.shape)
    dx = along_features(factor, x.ndim) * (unpooled - only_real(shared, mask))
    d_scale = d_centred * inverse_deviation
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(bias.dtype), None


_norm_pool = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))
_norm_pool.defvjp(_forward, _backward)


def _winners(x: Array, scale: Array, windows: Windows) -> tuple[Array, list[Array]]:
    """Returns each window's pixel that will be the largest, and the taps that it was chosen from."""
    taps = window_taps(x, windows)
    low = taps if windows.pads == UNPADDED else window_taps(x, windows, np.inf)
    largest, smallest = functools.reduce(jnp.maximum, taps), functools.reduce(jnp.minimum, low)
    return jnp.where(along_features(scale >= 0, largest.ndim), largest, smallest), taps


def _find_winners(x: Array, scale: Array, windows: Windows) -> tuple[Array, Array]:
    """Returns each window's winner, and its place in the window."""
    if target.backend() != "cpu":
        return _find_at_once(x, scale, windows)
    winners, taps = _winners(x, scale, windows)
    return winners, first_places(taps, winners)


def _find_at_once(x: Array, scale: Array, windows: Windows) -> tuple[Array, Array]:
    """Returns the same, neither computed from the other: a GPU then reads `x` once for both."""
    rises = along_features(scale >= 0, x.ndim)
    padded = zip(window_taps(x, windows), window_taps(x, windows, np.inf), strict=True)
    first, *others = (jnp.where(rises, low, high) for low, high in padded)
    winners, places = first, jnp.zeros(first.shape, jnp.int8)
    for place, tap in enumerate(others, 1):
        wins = jnp.where(rises, tap > winners, tap < winners) | jnp.isnan(tap)
        winners, places = jnp.where(wins, tap, winners), jnp.where(wins, np.int8(place), places)
    return winners, places
