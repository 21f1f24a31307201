"""Sums of squares, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpjax.ops.sums import ROW, square_sum


@pytest.mark.parametrize("shape", [(), (7,), (ROW,), (2, ROW), (3, ROW + 5), (5, 7, 2 * ROW // 3)])
def test_squares_add_up(shape):
    array = jax.random.normal(jax.random.key(0), shape)
    want = np.square(np.asarray(array, np.float64)).sum()
    np.testing.assert_allclose(jax.jit(square_sum)(array), want, rtol=1e-6)


def test_lanes_are_summed_apart():
    arrays = jax.random.normal(jax.random.key(0), (3, 2 * ROW + 1))
    arrays = arrays.at[1, ROW].set(jnp.nan).at[2, 2 * ROW].set(jnp.inf)
    sums = jax.jit(jax.vmap(square_sum))(arrays)
    np.testing.assert_allclose(sums[0], np.square(np.asarray(arrays[0], np.float64)).sum(), rtol=1e-6)
    assert np.isnan(sums[1]) and np.isinf(sums[2])
