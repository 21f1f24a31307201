"""Max pooling against Flax's, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hpjax.ops import max_pool


def value_and_gradient(pool, x, *args):
    @jax.jit
    def both(x):
        y, vjp = jax.vjp(lambda x: pool(x, *args), x)
        return y, vjp(jnp.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape))[0]

    return both(x)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    extra=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    padding=st.sampled_from(["VALID", "SAME", ((1, 0), (0, 1))]),
    levels=st.sampled_from([2, 50]),
)
def test_like_flax_with_ties(window, strides, extra, padding, levels):
    sizes = [w + e for w, e in zip(window, extra, strict=True)]
    # Few levels make ties frequent.
    x = jnp.asarray(np.random.default_rng(0).integers(0, levels, (2, *sizes, 3)), jnp.float32)
    got = value_and_gradient(max_pool, x, window, strides, padding)
    want = value_and_gradient(nnx.max_pool, x, window, strides, padding)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_vmap_and_dtype():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 6, 4)), jnp.bfloat16)
    got = jax.vmap(lambda x: value_and_gradient(max_pool, x, (2, 2), (2, 2)))(x)
    want = [value_and_gradient(nnx.max_pool, lane, (2, 2), (2, 2)) for lane in x]
    for k in (0, 1):
        assert got[k].dtype == jnp.bfloat16
        np.testing.assert_array_equal(got[k], jnp.stack([w[k] for w in want]))


def test_nested_vmap():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 2, 3, 5, 6, 4)), jnp.float32)
    twice = lambda pool: jax.vmap(jax.vmap(lambda x: value_and_gradient(pool, x, (2, 3), (1, 2))))(x)  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, twice(max_pool), twice(nnx.max_pool))


def test_a_window_over_the_edge_sees_no_padding():
    x = -jnp.ones((1, 5, 5, 2))
    padding = ((1, 1), (1, 1))
    got = value_and_gradient(max_pool, x, (3, 3), (2, 2), padding)
    want = value_and_gradient(nnx.max_pool, x, (3, 3), (2, 2), padding)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("strides", [(2, 2), (1, 1)])
def test_integers_and_nan(strides):
    whole = jnp.arange(32).reshape(1, 4, 4, 2)
    np.testing.assert_array_equal(max_pool(whole, (2, 2), strides), nnx.max_pool(whole, (2, 2), strides))
    ill = jnp.ones((1, 4, 4, 1)).at[0, 0, 1].set(jnp.nan)
    y, dx = value_and_gradient(max_pool, ill, (2, 2), (2, 2))
    assert np.isnan(y).sum() == 1
    assert not dx[0, :2, :2].any()  # a NaN has no gradient
    assert float(dx.sum()) == 2.0 + 3.0 + 4.0
