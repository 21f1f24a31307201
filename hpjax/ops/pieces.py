"""Elementwise updates of large arrays, each read and written once."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

from hpjax.ops.compiler import compute_apart

PIECE = 2**14  # elements; a piece of each of seven arrays fits a core's cache
LARGE = 4 * PIECE  # elements; smaller arrays stay in the cache anyhow


def update_in_pieces(
    f: Callable[..., tuple[Array, ...]],
    updated: tuple[Array, ...],
    read: tuple[Array, ...],
    scalars: tuple[Array, ...],
    *static: Any,
) -> tuple[Array, ...]:
    """Returns `f(*updated, *read, *scalars, *static)`: the new values of `updated`.

    XLA's CPU backend makes a loop over memory for each result, and copies what one result overwrites while
    another still reads it. A large array is therefore updated piece by piece, in place.

    Args:
      f: elementwise over `updated` and `read`; a function of its module, not a closure; not differentiated.
      updated: floating arrays of one shape.
      read: more arrays of that shape.
      scalars: arrays that are passed whole.
      static: hashable arguments.
    """
    size = updated[0].size
    if jax.default_backend() != "cpu" or size < LARGE:
        return f(*updated, *read, *scalars, *static)
    flat = [a.reshape(-1) for a in read]

    def update(olds: tuple[Array, ...], start: Any, length: int) -> tuple[Array, ...]:
        pieces = [lax.dynamic_slice_in_dim(a, start, length) for a in (*olds, *flat)]
        news = compute_apart(f, (*pieces, *scalars), *static)
        return tuple(
            lax.dynamic_update_slice_in_dim(old, new, start, 0) for old, new in zip(olds, news, strict=True)
        )

    olds = tuple(a.reshape(-1) for a in updated)
    whole, rest = divmod(size, PIECE)
    news = lax.fori_loop(0, whole, lambda i, arrays: update(arrays, i * PIECE, PIECE), olds)
    if rest:
        news = update(news, whole * PIECE, rest)
    return tuple(new.reshape(updated[0].shape) for new in news)
