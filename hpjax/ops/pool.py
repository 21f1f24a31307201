"""Max pooling whose backward pass is a handful of selects instead of a scatter."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]


def max_pool(
    x: Float[Array, "batch height width channels"],
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Float[Array, "batch out_height out_width channels"]:
    """Returns the maximum of each window; a drop-in for `flax.nnx.max_pool`.

    The gradient of a window goes to its first maximum, as in PyTorch and XLA. Windows that don't overlap and
    need no padding take slices and comparisons; all others are XLA's.

    Args:
      x: activations; any number of leading axes.
      window_shape: height and width of a window.
      strides: pixels from window to window; 1 where None, as in Flax.
      padding: `VALID`, `SAME`, or pixels before and after, per spatial axis.
    """
    height, width = (int(w) for w in window_shape)
    strides = tuple(int(s) for s in strides or (1, 1))
    pads = _pads(x.shape[-3:-1], (height, width), strides, padding)
    disjoint = strides[0] >= height and strides[1] >= width
    fits = x.shape[-3] >= height and x.shape[-2] >= width
    if disjoint and fits and not any(sum(pads, ())) and jnp.issubdtype(x.dtype, jnp.floating):
        return _disjoint_max_pool(x, (height, width), strides)
    return _general_max_pool(x, (height, width), strides, pads)


def _pads(sizes: Sequence[int], window: Pair, strides: Sequence[int], padding) -> tuple[Pair, Pair]:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, window, strides, padding)
    before_after = [(int(before), int(after)) for before, after in padding]
    return before_after[0], before_after[1]


def _general_max_pool(x: Array, window: Pair, strides: Sequence[int], pads: tuple[Pair, Pair]) -> Array:
    ones, zeros = (1,) * (x.ndim - 3), ((0, 0),) * (x.ndim - 3)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    init = np.asarray(lowest, x.dtype)[()]  # traced, it would hide that this is a maximum from autodiff
    return lax.reduce_window(
        x, init, lax.max, (*ones, *window, 1), (*ones, *strides, 1), (*zeros, *pads, (0, 0))
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _disjoint_max_pool(x: Array, window: Pair, strides: Pair) -> Array:
    return functools.reduce(jnp.maximum, _taps(x, window, strides))


def _forward(x, window, strides):
    y = _disjoint_max_pool(x, window, strides)
    return y, (x, y)


def _backward(window, strides, residuals, dy):
    x, y = residuals
    height, width = window
    taken = jnp.zeros(y.shape, bool)
    grads = []
    for tap in _taps(x, window, strides):
        # A maximum of NaN equals nothing: the window's first NaN wins.
        wins = ((tap == y) | (tap != tap)) & ~taken
        grads.append(jnp.where(wins, dy, 0))
        taken |= wins
    rows = [_side_by_side(grads[i * width : (i + 1) * width], -2, strides[1]) for i in range(height)]
    return (_fit(_side_by_side(rows, -3, strides[0]), x.shape),)


_disjoint_max_pool.defvjp(_forward, _backward)


def _taps(x: Array, window: Pair, strides: Pair) -> list[Array]:
    rows, columns = ((x.shape[axis - 3] - window[axis]) // strides[axis] + 1 for axis in (0, 1))
    return [
        x[
            ...,
            i : i + (rows - 1) * strides[0] + 1 : strides[0],
            j : j + (columns - 1) * strides[1] + 1 : strides[1],
            :,
        ]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _side_by_side(parts: list[Array], axis: int, stride: int) -> Array:
    """Interleaves `parts` along `axis`, with zeros up to `stride` values per window."""
    parts = parts + [jnp.zeros_like(parts[0])] * (stride - len(parts))
    shape = list(parts[0].shape)
    shape[axis] *= stride
    return jnp.stack(parts, axis).reshape(shape)


def _fit(dx: Array, shape: Sequence[int]) -> Array:
    """Crops or zero-pads the ends to `shape`: pixels that no window reaches have no gradient."""
    config = [(0, size - have, 0) for have, size in zip(dx.shape, shape, strict=True)]
    return lax.pad(dx, jnp.zeros((), dx.dtype), config)
