"""Updating in pieces gives what updating at once gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.ops.pieces import LARGE, PIECE, update_in_pieces


def _decay_and_add(x, total, y, scale, sign):
    return x - scale * y, total + sign * x * y


def _arrays(shape):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, shape) for key in keys]


@pytest.mark.parametrize("shape", [(7,), (LARGE,), (3, 5, LARGE // 10), (LARGE + PIECE // 3, 2)])
def test_equals_the_whole(shape):
    x, total, y = _arrays(shape)
    whole = [np.asarray(a, np.float64) for a in (x, total, y)]
    update = jax.jit(lambda *a: update_in_pieces(_decay_and_add, a[:2], a[2:3], a[3:], -1.0))
    for got, want in zip(update(x, total, y, 0.3), _decay_and_add(*whole, 0.3, -1.0), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_lanes_have_scalars_of_their_own():
    x, total, y = _arrays((3, LARGE + 5))
    scale = jnp.asarray([0.1, 0.2, 0.3])
    update = lambda x, total, y, scale: update_in_pieces(_decay_and_add, (x, total), (y,), (scale,), 2.0)  # noqa: E731
    got = jax.jit(jax.vmap(update, (0, 0, None, 0)))(x, total, y[0], scale)
    want = jax.vmap(lambda x, t, s: _decay_and_add(x, t, y[0], s, 2.0))(x, total, scale)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


def test_lanes_of_lanes():
    x, total, y = (a.reshape(2, 3, -1) for a in _arrays((6, LARGE + 5)))
    update = lambda x, total, y, scale: update_in_pieces(_decay_and_add, (x, total), (y,), (scale,), 2.0)  # noqa: E731
    scale = jnp.asarray([0.1, 0.2])
    got = jax.jit(jax.vmap(jax.vmap(update, (0, 0, 0, None)), (0, 0, 0, 0)))(x, total, y, scale)
    want = _decay_and_add(x, total, y, scale[:, None, None], 2.0)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
