"""Normalise, cut off and pool in one, against the three operations one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.ops.batch_norm import batch_norm, normalize
from hpjax.ops.compiler import compute_apart
from hpjax.ops.norm_pool import batch_norm_max_pool, normalize_max_pool
from hpjax.ops.sums import feature_sums


def _operands(shape, seed=0, levels=0):
    draws = np.random.default_rng(seed)
    x = draws.integers(0, levels, shape) if levels else draws.standard_normal(shape)
    scale, bias = draws.standard_normal((2, shape[-1]))
    return tuple(jnp.asarray(v, jnp.float32) for v in (x, scale, bias))


def _apart(x, scale, bias, mask=None, window=(2, 2)):
    y, moments = batch_norm(x, scale, bias, mask, relu=True)
    return nnx.max_pool(y, window, window), moments


def _together(x, scale, bias, mask=None, window=(2, 2)):
    return batch_norm_max_pool(x, scale, bias, mask, window=window)


def _gradients(f, operands, mask, window):
    @jax.jit
    def both(*operands):
        y, vjp = jax.vjp(lambda *o: f(*o, mask, window)[0], *operands)
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        if mask is not None:
            weights *= mask[:, None, None, None]
        return y, vjp(weights)

    return both(*operands)


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (1, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients(window, masked):
    operands = _operands((4, 7, 8, 5))
    mask = jnp.asarray([1.0, 1.0, 1.0, 0.0]) if masked else None
    got, want = (_gradients(f, operands, mask, window) for f in (_together, _apart))
    # Sums run in another order: float32 rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want)


def test_a_tie_goes_to_the_first():
    operands = _operands((2, 6, 6, 3), levels=2)
    got, want = (_gradients(f, operands, None, (2, 2))[1][0] for f in (_together, _apart))
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def test_lanes():
    lanes = [_operands((3, 6, 6, 4), seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *lanes)
    got = jax.vmap(lambda *o: _gradients(_together, o, None, (2, 2)))(*stacked)
    for k, operands in enumerate(lanes):
        want = _gradients(_apart, operands, None, (2, 2))
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=2e-4, atol=2e-5), got, want)


def test_evaluation():
    x, scale, bias = _operands((2, 6, 6, 4))
    mean, variance = bias * 0.1, jnp.square(scale) + 0.5
    want = nnx.max_pool(normalize(x, mean, variance, scale, bias, relu=True), (2, 2), (2, 2))
    got = normalize_max_pool(x, mean, variance, scale, bias)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5, 4, 2), (3, 2), (3, 4, 2)])
def test_sums_leave_out_what_is_masked(shape):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32).at[1].set(jnp.nan)
    mask = jnp.asarray([1.0, 0.0, 1.0])
    total, squares = feature_sums(lambda x, o: (x - o, jnp.square(x - o)), (x,), (jnp.ones(2),), mask)
    kept = np.asarray(x)[[0, 2]].reshape(-1, 2) - 1
    np.testing.assert_allclose(total, kept.sum(0), rtol=1e-5)
    np.testing.assert_allclose(squares, (kept**2).sum(0), rtol=1e-5)


def test_what_is_computed_apart_is_the_same():
    def parts(x, y, factor):
        return x * jnp.broadcast_to(y, x.shape), (factor * x).sum()

    x, y = jnp.arange(6.0).reshape(2, 3), jnp.arange(3.0)
    for operands in ((x, y), (x.at[0, 0].set(jnp.nan), y)):
        got, want = jax.jit(lambda *o: compute_apart(parts, o, 3.0))(*operands), parts(*operands, 3.0)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    got = jax.jit(jax.vmap(lambda x: compute_apart(parts, (x, y), 3.0)))(x)
    jax.tree.map(np.testing.assert_array_equal, got, jax.vmap(lambda x: parts(x, y, 3.0))(x))
