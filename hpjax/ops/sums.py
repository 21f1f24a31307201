"""Sums without a copy of what is summed: per feature over everything else, and of squares."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from hpjax.ops import target

ROW = 2**12  # elements of a large array that are added up at a time


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which values of `dtype` are summed: float32, or float64 where they are."""
    return jnp.dtype(dtype if dtype == jnp.float64 else jnp.float32)


def square_sum(array: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns the sum of an array's squares."""
    rows = array.size // ROW
    # Measured with jaxlib 0.10.2; no public issue known. It can go when XLA squares while it sums there.
    if target.backend() != "cpu" or rows < 2:
        return jnp.sum(jnp.square(array))
    flat = array.reshape(-1)

    def add(i, totals):  # else the squares are written out and reduced as a tree
        return totals + jnp.square(lax.dynamic_slice_in_dim(flat, i * ROW, ROW))

    totals = lax.fori_loop(0, rows, add, jnp.zeros(ROW, array.dtype))
    return totals.sum() + jnp.sum(jnp.square(flat[rows * ROW :]))


def feature_sums(
    values: Callable[..., tuple[Array, ...]],
    arrays: Sequence[Float[Array, "batch *space features"]],
    features: Sequence[Float[Array, " features"]] = (),
    mask: Float[Array, " batch"] | None = None,
) -> tuple[Float[Array, " features"], ...]:
    """Returns the sums over batch and space of what `values` makes of the arrays.

    Args:
      values: `f(*arrays, *features)`, elementwise, returns a tuple of arrays in the dtype of the sums.
      arrays: of one shape, features last.
      features: further arguments, one value per feature; `values` gets them with as many axes as the arrays.
      mask: 1 for an example that counts; whatever the others hold doesn't.
    """
    # Measured with jaxlib 0.10.2; no public issue known. It can go when XLA fuses into reductions there.
    if target.backend() == "cpu" and arrays[0].ndim > 2:
        return _sums_by_row(values, arrays, features, mask)
    parts = values(*arrays, *(along_features(f, arrays[0].ndim) for f in features))
    return tuple(only_real(part, mask).sum(tuple(range(part.ndim - 1))) for part in parts)


def along_features(values: Shaped[Array, " features"], ndim: int) -> Shaped[Array, "*ones features"]:
    """Returns values per feature as an array of `ndim` axes that broadcasts along the last."""
    return lax.expand_dims(values, range(ndim - 1))


def only_real(values: Array, mask: Float[Array, " batch"] | None) -> Array:
    """Returns `values` with zeros for the examples that don't count."""
    if mask is None:
        return values
    return jnp.where(mask.reshape(-1, *(1,) * (values.ndim - 1)) > 0, values, 0)


def _sums_by_row(values: Callable, arrays: Sequence[Array], features: Sequence[Array], mask) -> tuple:
    """Adds up rows of all images in a loop: XLA's CPU backend would write out `values` and tree-reduce it."""
    batch, rows, *space, num_features = arrays[0].shape
    width = math.prod(space)
    flat = [a.reshape(batch, rows, width * num_features) for a in arrays]
    wide = [along_features(jnp.tile(f, width), 2) for f in features]

    def row(i):
        return values(*(lax.dynamic_index_in_dim(a, i, 1, keepdims=False) for a in flat), *wide)

    def add(i, totals):
        return tuple(total + part for total, part in zip(totals, row(i), strict=True))

    zeros = tuple(jnp.zeros(part.shape, part.dtype) for part in jax.eval_shape(row, 0))
    totals = lax.fori_loop(0, rows, add, zeros)
    return tuple(only_real(t, mask).reshape(-1, num_features).sum(0) for t in totals)
