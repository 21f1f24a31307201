"""Elementwise updates of large arrays, each read and written once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from hpjax.ops import target
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
    # Measured with jaxlib 0.10.2; no public issue known. It can go when one loop there gives several results.
    if target.backend() != "cpu" or size < LARGE:
        return f(*updated, *read, *scalars, *static)
    first = _update_lanes(f, static)
    news = first(*jax.tree.map(lambda array: jnp.asarray(array)[None], (updated, read, scalars)))
    return tuple(new[0] for new in news)


@functools.cache
def _update_lanes(f: Callable[..., tuple[Array, ...]], static: tuple) -> Callable[..., tuple[Array, ...]]:
    """Returns a function of arrays with a lane axis: lane after lane, so that a piece stays small."""

    @custom_vmap
    def update(updated: tuple[Array, ...], read: tuple[Array, ...], scalars: tuple[Array, ...]):
        lanes, shape = updated[0].shape[0], updated[0].shape
        flat = [a.reshape(lanes, -1) for a in read]

        def update_piece(olds: tuple[Array, ...], lane: Any, start: Any, length: int) -> tuple[Array, ...]:
            pieces = [lax.dynamic_slice(a, (lane, start), (1, length)).reshape(-1) for a in (*olds, *flat)]
            own = [lax.dynamic_index_in_dim(scalar, lane, keepdims=False) for scalar in scalars]
            news = compute_apart(f, (*pieces, *own), *static)
            return tuple(
                lax.dynamic_update_slice(old, new[None], (lane, start))
                for old, new in zip(olds, news, strict=True)
            )

        def update_lane(lane: Any, olds: tuple[Array, ...]) -> tuple[Array, ...]:
            def next_piece(i: Any, olds: tuple[Array, ...]) -> tuple[Array, ...]:
                return update_piece(olds, lane, i * PIECE, PIECE)

            whole, rest = divmod(olds[0].shape[1], PIECE)
            news = lax.fori_loop(0, whole, next_piece, olds)
            return update_piece(news, lane, whole * PIECE, rest) if rest else news

        olds = tuple(a.reshape(lanes, -1) for a in updated)
        return tuple(new.reshape(shape) for new in lax.fori_loop(0, lanes, update_lane, olds))

    @update.def_vmap
    def update_more(axis_size: int, batched: Any, *arrays: Any):
        def merge(array: Array, is_batched: bool) -> Array:
            if not is_batched:
                array = jnp.broadcast_to(array, (axis_size, *array.shape))
            return array.reshape(-1, *array.shape[2:])

        news = update(*jax.tree.map(merge, arrays, tuple(batched)))
        split = tuple(new.reshape(axis_size, -1, *new.shape[1:]) for new in news)
        return split, (True,) * len(split)

    return update
