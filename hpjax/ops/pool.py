"""Max pooling whose backward pass is a handful of selects instead of a scatter."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int8, Shaped

from hpjax.ops.compiler import compute_apart

Pair = tuple[int, int]
MOST_PLACES = 127  # in a window, as an int8 counts them


class Windows(NamedTuple):
    """Where the windows lie, per spatial axis."""

    sizes: Pair
    strides: Pair
    pads: tuple[Pair, Pair] = ((0, 0), (0, 0))


def max_pool(
    x: Shaped[Array, "*batch height width channels"],
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> Shaped[Array, "*batch out_height out_width channels"]:
    """Returns the maximum of each window; a drop-in for `flax.nnx.max_pool`.

    The gradient of a window goes to its first maximum, as in PyTorch and XLA; of a NaN it goes nowhere.

    Args:
      x: activations; any number of leading axes.
      window_shape: height and width of a window.
      strides: pixels from window to window; 1 where None, as in Flax.
      padding: `VALID`, `SAME`, or pixels before and after, per spatial axis.
    """
    sizes, strides = _pair(window_shape), _pair(strides or (1, 1))
    windows = Windows(sizes, strides, _pads(x.shape[-3:-1], sizes, strides, padding))
    if not _is_ours(x, windows):
        return _general_max_pool(x, windows)
    flat = x.reshape(-1, *x.shape[-3:])
    y: Array = _max_pool(flat, windows)  # type: ignore[assignment]
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def window_taps(
    x: Float[Array, "batch height width channels"], windows: Windows, outside: float = -np.inf
) -> list[Array]:
    """Returns, for each place in a window, what all windows hold there; `outside` where that isn't in `x`."""
    padded = _padded(x, windows.pads, outside)
    (height, width), (down, right) = windows.sizes, windows.strides
    rows, columns = _counts(padded.shape[1:3], windows)
    return [
        padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(height)
        for j in range(width)
    ]


def first_places(taps: list[Array], winners: Array) -> Int8[Array, "batch rows columns channels"]:
    """Returns the number of the first tap that equals the winner; the number of taps where none does."""
    places = jnp.full(winners.shape, len(taps), jnp.int8)
    for place in reversed(range(len(taps))):
        places = jnp.where(taps[place] == winners, np.int8(place), places)
    return places


def unpool(
    dy: Float[Array, "batch rows columns channels"],
    places: Int8[Array, "batch rows columns channels"],
    windows: Windows,
    shape: tuple[int, ...],
) -> Float[Array, "batch height width channels"]:
    """Returns the sum of each window's `dy` at the window's place, in `shape`; zeros elsewhere."""
    strides = windows.strides
    padded = [size + sum(pads) for size, pads in zip(shape[1:3], windows.pads, strict=True)]
    cells = [-(-size // stride) for size, stride in zip(padded, strides, strict=True)]
    reach = [-(-size // stride) for size, stride in zip(windows.sizes, strides, strict=True)]
    total = None
    # A pixel lies in the window that starts in its cell (of stride by stride pixels) or in earlier cells.
    for back in itertools.product(*map(range, reach)):
        mine = _shifted(places, back, cells, -1)[:, :, None, :, None] == _place_in_window(back, windows)
        part = jnp.where(mine, _shifted(dy, back, cells, 0)[:, :, None, :, None], 0)
        total = part if total is None else total + part
    assert total is not None
    full = total.reshape(shape[0], cells[0] * strides[0], cells[1] * strides[1], shape[3])
    (top, _), (left, _) = windows.pads
    extra = [(top, full.shape[1] - top - shape[1]), (left, full.shape[2] - left - shape[2])]
    return _padded(full, tuple((-before, -after) for before, after in extra), 0)


def _is_ours(x: Array, windows: Windows) -> bool:
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    padded = [size + sum(pads) for size, pads in zip(x.shape[-3:-1], windows.pads, strict=True)]
    fits = x.ndim > 3 and x.size > 0 and all(p >= w for p, w in zip(padded, windows.sizes, strict=True))
    inside = all(max(p) < w for p, w in zip(windows.pads, windows.sizes, strict=True))
    return floating and fits and inside and windows.sizes[0] * windows.sizes[1] <= MOST_PLACES


def _pair(sizes: Sequence[int]) -> Pair:
    height, width = (int(size) for size in sizes)
    return height, width


def _pads(sizes: Sequence[int], window: Pair, strides: Pair, padding) -> tuple[Pair, Pair]:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, window, strides, padding)
    before_after = [(int(before), int(after)) for before, after in padding]
    return before_after[0], before_after[1]


def _general_max_pool(x: Array, windows: Windows) -> Array:
    ones, zeros = (1,) * (x.ndim - 3), ((0, 0),) * (x.ndim - 3)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    init = np.asarray(lowest, x.dtype)[()]  # traced, it would hide that this is a maximum from autodiff
    sizes, strides = (*ones, *windows.sizes, 1), (*ones, *windows.strides, 1)
    return lax.reduce_window(x, init, lax.max, sizes, strides, (*zeros, *windows.pads, (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, windows: Windows) -> Array:
    return functools.reduce(jnp.maximum, window_taps(x, windows))


def _forward(x, windows):
    y, places = compute_apart(_find, (x,), windows)
    return y, (places, x)


def _find(x: Array, windows: Windows) -> tuple[Array, Array]:
    taps = window_taps(x, windows)
    y = functools.reduce(jnp.maximum, taps)
    return y, first_places(taps, y)


def _backward(windows, residuals, dy):
    places, x = residuals
    return (unpool(dy, places, windows, x.shape),)


_max_pool.defvjp(_forward, _backward)


def _counts(padded: Sequence[int], windows: Windows) -> Pair:
    rows, columns = (
        (size - window) // stride + 1
        for size, window, stride in zip(padded, windows.sizes, windows.strides, strict=True)
    )
    return rows, columns


def _padded(x: Array, pads: Sequence[Pair], value: float) -> Array:
    if not any(map(any, pads)):
        return x
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])


def _shifted(x: Array, back: Sequence[int], cells: Sequence[int], value: int) -> Array:
    """Returns `x` moved down and right by `back`, in `cells` rows and columns; `value` where it isn't."""
    pads = [(by, count - by - size) for by, count, size in zip(back, cells, x.shape[1:3], strict=True)]
    return _padded(x, pads, value)


def _place_in_window(back: Sequence[int], windows: Windows) -> np.ndarray:
    """Returns, for the pixels of a cell, their place in the window `back` cells before; -2 outside of it."""
    rows, columns = (np.arange(s) + s * by for s, by in zip(windows.strides, back, strict=True))
    inside = (rows < windows.sizes[0])[:, None] & (columns < windows.sizes[1])
    places = np.where(inside, windows.sizes[1] * rows[:, None] + columns, -2)
    return places.astype(np.int8)[None, None, :, None, :, None]
